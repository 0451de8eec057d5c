#!/bin/bash
# check.sh [--long] [GROUP...]: has spin search all states of migration.pml, in every configuration of the groups (default: all
# of them), and has it find what is wrong with each mutant. A line for each: configuration, states, depth, seconds. What
# fails is shown step by step, in the words of the protocol. --long: larger configurations, hours and many GiB.
# Files go to $BUILD_DIR/model (default: build/ of the source).
set -uo pipefail

model=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/migration.pml
work=${BUILD_DIR:-$(dirname -- "$model")/../../build}/model
long=false
if [ "${1:-}" = --long ]; then
    long=true
    shift
fi
memory=4000 states=-DNOCOMP # MiB: a search that needs more fails; states of assertions as they are, which is fastest
$long && memory=${MODEL_MIB:-14000} states=-DCOLLAPSE
failed=0

# build NAME "pan's compiler options" DEFINES...: leaves pan in $dir
build() {
    local name=$1 options=$2
    shift 2
    dir=$work/$name
    mkdir -p "$dir" && cd "$dir" && rm -f ./*.trail pan pan.out && cp "$model" migration.pml || return 1
    # shellcheck disable=SC2086 # a list
    spin -a "$@" migration.pml >build.out 2>&1 &&
        gcc -w -DNOREDUCE -DMEMLIM=$memory $options -o pan pan.c >>build.out 2>&1 && return 0
    cat build.out
    return 1
}

figures() {
    awk '/depth reached/ { depth = $6 + 0 } /states, stored/ { states = $1 } /elapsed time/ { seconds = $4 }
        END { printf "%10d states, depth %4d, %6.1f s", states, depth, seconds }' pan.out
}

# The whole space was searched, and nothing found.
complete() {
    grep -q 'errors: 0' pan.out && ! grep -qE 'too small|out of memory|max search depth|memory limit|interrupted' pan.out
}

story() {
    grep -E '^pan:|^error|memory' pan.out
    spin -t "$@" migration.pml 2>&1 | grep -E '^ *[0-9]: |Error' | sed 's/^ */    /'
}

holds() { # NAME DEFINES...
    local name=$1
    shift
    if build "$name" "-O1 -DSAFETY $states" "$@" && ./pan -m100000 >pan.out 2>&1 && complete; then
        printf '%-34s %s   %s\n' "$name" "$(figures)" "$*"
    else
        echo "FAILED: $name ($*)"
        story "$@"
        failed=1
    fi
}

claims() { # "CLAIM..." NAME DEFINES...: formulas of the model's end, on all paths
    local claim claims=$1 name=$2
    shift 2
    build "$name, claims" "-O1 -DNOFAIR -DCOLLAPSE" -DLTL "$@" || failed=1
    for claim in $claims; do
        if ./pan -m100000 -a -N "$claim" >pan.out 2>&1 && complete; then
            printf '%-34s %s   %s\n' "$name: $claim" "$(figures)" "$*"
        else
            echo "FAILED: $name: $claim ($*)"
            story -DLTL "$@"
            failed=1
        fi
    done
}

# mutant NAME DEFINES...: the model with one step broken; spin must find it by an assertion
mutant() {
    local name=$1
    shift
    if build "mutant $name" "-O0 -DSAFETY $states" "-DMUTANT_$name" "$@" && ./pan -m100000 >pan.out 2>&1 &&
        grep -q '^pan:1: assertion violated' pan.out && ! grep -q 'q_len' pan.out; then
        printf '%-34s %s   found\n' "mutant $name" "$(figures)"
    else
        echo "FAILED: the mutant $name passes ($*)"
        cat pan.out
        failed=1
    fi
}

unclaimed() { # CLAIM NAME DEFINES...: a formula that does not hold, the model's assertions being off
    local claim=$1 name=$2
    shift 2
    if build "$name: $claim" "-O0 -DNOFAIR -DCOLLAPSE" -DLTL -DUNCHECKED "$@" && ./pan -m100000 -a -E -N "$claim" >pan.out 2>&1 &&
        grep -qE '^pan:1: (acceptance cycle|assertion violated)' pan.out; then
        printf '%-34s %s   found\n' "not $claim" "$(figures)"
    else
        echo "FAILED: $name satisfies $claim ($*)"
        cat pan.out
        failed=1
    fi
}

# Each rank is a node: messages decide.
messages() {
    holds "grants" -DMOVES=5 -DLATES=1 -DCRASHES=1
    holds "no grants" -DMOVES=4 -DLATES=2 -DCRASHES=1 -DGRANTS=0
    holds "late twice" -DMOVES=4 -DLATES=2 -DCRASHES=1
    holds "two crashes, refusals" -DMOVES=3 -DLATES=2 -DCRASHES=2 -DREFUSALS=1
    holds "several pages" -DMOVES=4 -DLATES=1 -DCRASHES=1 -DPAGES=2
    $long || return 0
    holds "long grants" -DMOVES=6 -DLATES=2 -DCRASHES=1
    holds "long refusals" -DMOVES=5 -DLATES=2 -DCRASHES=2 -DREFUSALS=2
}

lost_connections() {
    holds "lost connection" -DMOVES=2 -DLATES=1 -DCRASHES=2 -DCUTS=1 -DHEALS=1
    holds "lost connection, onward" -DMOVES=3 -DLATES=0 -DCRASHES=1 -DCUTS=1 -DHEALS=1
    holds "lost inside a node" -DMOVES=2 -DLATES=1 -DCRASHES=1 -DCUTS=1 -DHEALS=1 -DNODES=3
    $long || return 0
    holds "long lost connections" -DMOVES=4 -DLATES=1 -DCRASHES=1 -DCUTS=2 -DHEALS=1
    holds "long lost connections, word" -DMOVES=3 -DLATES=1 -DCRASHES=1 -DCUTS=2 -DHEALS=1 -DNODES=2
}

# All ranks are a node: the node's word decides.
word() {
    holds "word" -DNODES=3 -DMOVES=4 -DLATES=1 -DCRASHES=1
    holds "word, late twice, refusals" -DNODES=3 -DMOVES=3 -DLATES=2 -DCRASHES=1 -DREFUSALS=1
    holds "word, no grants" -DNODES=3 -DMOVES=4 -DLATES=2 -DCRASHES=1 -DGRANTS=0
    holds "handover" -DNODES=3 -DSHARED=1 -DMOVES=4 -DLATES=2 -DCRASHES=2 -DREFUSALS=1
    $long || return 0
    holds "long word" -DNODES=3 -DMOVES=5 -DLATES=2 -DCRASHES=2 -DREFUSALS=1
    holds "long handover" -DNODES=3 -DSHARED=1 -DMOVES=6 -DLATES=3 -DCRASHES=2 -DREFUSALS=2
}

# Ranks 0 and 1 are a node, rank 2 is beyond it.
mixed() {
    holds "mixed, private" -DNODES=2 -DMOVES=4 -DLATES=1 -DCRASHES=1
    holds "mixed, shared" -DNODES=2 -DSHARED=1 -DMOVES=4 -DLATES=2 -DCRASHES=1
    holds "mixed, shared, from beyond" -DNODES=2 -DSHARED=1 -DMOVES=4 -DLATES=2 -DCRASHES=1 -DHOME0=2
    holds "mixed, shared, refusals" -DNODES=2 -DSHARED=1 -DMOVES=3 -DLATES=2 -DCRASHES=2 -DREFUSALS=1 -DHOME0=2
    $long || return 0
    holds "long mixed, private" -DNODES=2 -DMOVES=5 -DLATES=2 -DCRASHES=1
    holds "long mixed, shared" -DNODES=2 -DSHARED=1 -DMOVES=6 -DLATES=2 -DCRASHES=2 -DREFUSALS=1 -DHOME0=2
}

# Two heaps share the ways between ranks, and their deaths; nothing else.
heaps() {
    holds "two heaps" -DHEAPS=2 -DMOVES=3 -DLATES=1 -DCRASHES=1
    holds "two heaps of one rank" -DHEAPS=2 -DHOME1=0 -DMOVES=3 -DLATES=1
    holds "two heaps, word" -DHEAPS=2 -DMOVES=2 -DLATES=2 -DCRASHES=1 -DNODES=3
    holds "two heaps, mixed" -DHEAPS=2 -DMOVES=2 -DLATES=2 -DCRASHES=1 -DNODES=2 -DHOME1=2
    $long || return 0
    holds "long two heaps" -DHEAPS=2 -DMOVES=4 -DLATES=1 -DCRASHES=1
    holds "long two heaps, mixed" -DHEAPS=2 -DMOVES=4 -DLATES=1 -DCRASHES=1 -DNODES=2 -DSHARED=1 -DHOME1=2
}

# On all paths: no fairness is needed, for the model has no cycle but those that these would find.
progress() {
    claims "ends rests one_owner no_doubt" "no faults" -DMOVES=4 -DLATES=0
    claims "ends rests one_owner no_doubt" "no faults, word" -DMOVES=3 -DLATES=0 -DNODES=3
    claims "ends rests one_owner" "faults" -DMOVES=3 -DLATES=1 -DCRASHES=1
    claims "ends rests one_owner no_doubt" "faults, word" -DMOVES=2 -DLATES=1 -DCRASHES=1 -DNODES=3
    claims "ends rests one_owner" "faults, mixed" -DMOVES=2 -DLATES=1 -DCRASHES=1 -DNODES=2 -DSHARED=1
    claims "ends rests one_owner" "faults, lost connection" -DMOVES=2 -DLATES=0 -DCRASHES=1 -DCUTS=1
}

mutants() {
    mutant TIMEOUT_OWNS -DMOVES=2               # the source owns again when it has waited long enough
    mutant OWN_AT_COMMIT -DMOVES=2 -DCRASHES=1 -DCUTS=1
    mutant RELEASE_UNASKED -DMOVES=2            # REVOKE, and no wait for UNGRANT
    mutant UNGRANT_IN_USE -DMOVES=2             # UNGRANT, and the puts go on
    mutant PROMISE_FORGOTTEN -DMOVES=2          # the source promised a grant and has left nothing
    mutant GRANT_UNCHECKED -DMOVES=6 -DNODES=2 -DSHARED=1 -DHOME0=2 # COMMIT under a grant that stands no longer
    mutant NO_EPOCH -DMOVES=3                   # an answer to an earlier attempt is taken for one to this
    mutant STOP_UNFLUSHED -DMOVES=2             # CANCEL, and puts still land
    mutant NO_CANCEL -DMOVES=1
    mutant STALE_RESERVE -DMOVES=5              # a reservation that was given up takes away a grant
    mutant CLAIM_ANY -DMOVES=3 -DNODES=2 -DSHARED=1 # the same for pages of another rank of the node
    mutant DECLINE_BY_STORE -DMOVES=1 -DNODES=3 # no compare-and-swap at the source
    mutant TAKE_BY_STORE -DMOVES=1 -DNODES=3    # none at the target
    mutant TAKEN_IS_OWNED -DMOVES=3 -DNODES=3   # the heap has moved on before the source looks
    mutant DEATH_BEFORE_WORDS -DMOVES=1 -DCRASHES=1 # a death is heard before what was said
    mutant DEATH_ABANDONS -DMOVES=1 -DCRASHES=1 # what has ARRIVED is given up with its source
    mutant DOUBT_IS_DEAF -DMOVES=1              # an ACK that comes late is not heard
    mutant STOPPING_OWNS -DMOVES=1 -DLATES=2    # puts that are not taken in time are left on their way: the heap is used again
    mutant STOPPING_UNGRANTS -DMOVES=2 -DLATES=2 # their target is told that its grant is not used any more
    mutant STOPPING_IS_DEAF -DMOVES=1 -DLATES=2 # they are taken at last, and nobody looks
    unclaimed one_owner "mutant TIMEOUT_OWNS" -DMUTANT_TIMEOUT_OWNS -DMOVES=2 -DCUTS=1 -DCRASHES=1
    unclaimed ends "mutant GRANT_UNHEARD" -DMUTANT_GRANT_UNHEARD -DMOVES=1 -DLATES=0
    unclaimed ends "mutant STOPPING_WAITS" -DMUTANT_STOPPING_WAITS -DMOVES=1 -DLATES=0 -DCUTS=1 # as long as puts are not taken
    unclaimed no_doubt "late" -DMOVES=1 # no mutant: where messages decide, lateness brings doubt
}

groups=(messages lost_connections word mixed heaps progress mutants)
(($# > 0)) && groups=("$@")
for group in "${groups[@]}"; do
    started=$SECONDS
    declare -F "$group" >/dev/null || { echo "check.sh: no group '$group'"; exit 2; }
    $group
    echo "== $group: $((SECONDS - started)) s"
done
exit $failed
