#!/bin/bash
# pmix.sh MPIRUN BIN CASE ARGS...: programs of BIN that know nothing of MPI, started by Open MPI's mpirun.
#   runs RANKS PROGRAM ARGS...      all ranks end well
#   survives RANKS PROGRAM ARGS...  one rank is killed, the others say at their end that all is well
#   module RANKS DONE SCENARIO ARGS...  the bootstrap's table by itself; so many ranks come to the end
#   refusals                        jobs that must not start: each rank says so, nobody waits for ever
#   hosts                           ranks of several hosts (as mpirun sees it, each with its own daemon)
#   orphans                         a rank in a barrier whose launcher is killed does not wait for ever
#   startup                         a rank's memory does not grow with the job
set -uo pipefail
mpirun=$1 bin=$2 case=$3
shift 3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export mpirun bin PATH=$bin:$PATH
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

launch() { timeout -k 10 "${limit:-100}" "$mpirun" "$@" </dev/null; }

fail() { # NAME STATUS OUTPUT
    printf 'FAILED: %s (status %s)\n%s\n' "$1" "$2" "$3"
    failed=1
}

# refused NAME PATTERN RANKS COMMAND...: the pattern is in the output, and so many ranks have got an error. With
# --enable-recovery mpirun lets the others run on, so that one that waits is found out.
refused() {
    local name=$1 pattern=$2 ranks=$3 out status=0
    shift 3
    out=$(limit=60 launch --enable-recovery -n "$ranks" "$@" 2>&1) || status=$?
    if [ $status = 124 ] || [ $status = 137 ] || ! grep -Eq "$pattern" <<<"$out" ||
        [ "$(grep -c "^rank 0: .*init(&params.* gives '" <<<"$out")" != "$ranks" ]; then
        fail "$name" "$status, pattern $pattern" "$out"
    fi
}

# ended NAME PATTERN RANKS COMMAND...: one rank does not even come to iso_init, and mpirun ends the others.
ended() {
    local name=$1 pattern=$2 out status=0
    shift 2
    out=$(limit=60 launch -n "$@" 2>&1) || status=$?
    case $status in 0 | 124 | 137) fail "$name" $status "$out" ;; esac
    grep -Eq "$pattern" <<<"$out" || fail "$name" "$status, pattern $pattern" "$out"
}

# What one rank alone has set: rank 1, or WHO.
one_differs='[ "$PMIX_RANK" = "${WHO:-1}" ] && export "$NAME=$VALUE"; exec "$bin/protocol" base'

case $case in
runs)
    out=$(limit=60 launch -n "$@" 2>&1) || fail "$*" $? "$out"
    ;;
survives)
    ranks=$1
    out=$(limit=40 launch --enable-recovery -n "$@" 2>&1)
    status=$?
    if [ $status = 124 ] || [ "$(grep -c '^survivor [0-9]* ok$' <<<"$out")" != $((ranks - 1)) ]; then
        fail "$*" $status "$out"
    fi
    ;;
module)
    ranks=$1 done=$2
    shift 2
    out=$(limit=60 launch --enable-recovery -n "$ranks" bootstrap_rank "$bin/../lib/isomalloc/libisomalloc-pmix.so" "$@" 2>&1)
    status=$?
    if [ $status = 124 ] || [ "$(grep -c ': done$' <<<"$out")" != "$done" ]; then
        fail "$*" $status "$out"
    fi
    ;;
refusals)
    base=("$bin/protocol" base)
    refused "bad backing everywhere" "ISO_BACKING.*paper" 3 env ISO_BACKING=paper "${base[@]}"
    refused "no such bootstrap" "bootstrap 'pidgin'.*libisomalloc-pidgin" 3 env ISO_BOOTSTRAP=pidgin "${base[@]}"
    refused "not started by iso_run" "needs a program started by iso_run" 3 env ISO_BOOTSTRAP=local "${base[@]}"
    refused "module not installed" "libisomalloc-pmix.so was looked for in /nowhere" 3 env ISO_MODULE_PATH=/nowhere "${base[@]}"
    for setting in ISO_BACKING=paper ISO_TIMEOUT=soon; do
        ended "$setting in one rank" "${setting%%=*}" 3 env NAME="${setting%%=*}" VALUE="${setting#*=}" bash -c "$one_differs"
    done
    for setting in ISO_TRANSPORT=carrier-pigeon ISO_SPACE_SIZE=1G ISO_NODE_SIZE=1; do
        refused "$setting in one rank" "${setting%%=*}" 3 env NAME="${setting%%=*}" VALUE="${setting#*=}" bash -c "$one_differs"
    done
    # in a job whose ranks are a tree of two levels
    refused "ISO_SPACE_SIZE in rank 67 of 70" "rank 67 has ISO_SPACE_SIZE" 70 env WHO=67 NAME=ISO_SPACE_SIZE VALUE=1G bash -c "$one_differs"
    refused "RLIMIT_FSIZE too small in one rank" "ulimit -f" 3 env ISO_BACKING=private bash -c \
        '[ "$PMIX_RANK" = 1 ] && ulimit -f 1000; exec "$bin/protocol" base'
    # The launcher is not one with PMIx; and it is none that still runs.
    for env in "OMPI_COMM_WORLD_SIZE=2" "SLURM_STEP_NUM_TASKS=4"; do
        out=$(env "$env" "${base[@]}" 2>&1)
        grep -q "${env%%=*}.*PMIX_NAMESPACE is not set.*iso_run" <<<"$out" || fail "$env" $? "$out"
    done
    out=$(PMIX_NAMESPACE=gone PMIX_RANK=0 timeout 30 "${base[@]}" 2>&1)
    grep -q "PMIX_NAMESPACE=gone.*ISO_BOOTSTRAP=single" <<<"$out" || fail "a launcher that is gone" $? "$out"
    # A process beside the rank is not the rank; told to be on its own, it is. The rank does not mind.
    out=$(launch -n 2 bash -c '"$bin/protocol" idle & rank=$!
        sleep 1; "$bin/protocol" base; ISO_BOOTSTRAP=single "$bin/protocol" base && wait $rank' 2>&1) &&
        [ "$(grep -c 'cannot join as rank [01]: process [0-9]* is that rank' <<<"$out")" -ge 2 ] ||
        fail "a process beside the rank" $? "$out"
    ;;
hosts)
    # mpirun reaches a "host" through this: the same machine under another name.
    printf '#!/bin/bash\nhost=$1; shift\nexec unshare -u bash -c '"'hostname \"\$0\"; eval \"\$1\"'"' "$host" "$*"\n' >"$work/rsh"
    chmod +x "$work/rsh"
    if ! unshare -u hostname first 2>/dev/null; then
        echo "not tried: several hosts (this needs the right to make UTS namespaces)"
        exit 0
    fi
    for program in "2 contents graph" "6 contents graph" "3 lifecycle again" "4 guest iMfF" "4 guest MiFf"; do
        read -ra program <<<"$program"
        per_host=$(((program[0] + 1) / 2))
        out=$(limit=50 launch --mca plm_rsh_agent "$work/rsh" --host "first:$per_host,second:$per_host" -n "${program[0]}" \
            "$bin/${program[1]}" "${program[2]}" 2>&1) || fail "${program[*]}: ranks on two hosts" $? "$out"
    done
    ;;
orphans)
    "$mpirun" -n 2 "$bin/protocol" launcher_dies >"$work/out" 2>&1 </dev/null &
    launcher=$!
    for ((i = 0; i < 200; i++)); do
        [ "$(grep -c '^pid [0-9]*$' "$work/out")" = 2 ] && break
        sleep 0.1
    done
    mapfile -t ranks < <(sed -n 's/^pid \([0-9]*\)$/\1/p' "$work/out")
    [ ${#ranks[@]} = 2 ] || fail "two ranks have not begun" 0 "$(cat "$work/out")"
    kill -KILL $launcher
    for ((i = 0; i < 100; i++)); do
        alive=0
        for rank in "${ranks[@]}"; do
            [ -e "/proc/$rank" ] && alive=1
        done
        [ $alive = 0 ] && break
        sleep 0.1
    done
    if [ "$alive" != 0 ]; then
        fail "a rank waits for ever in a barrier whose launcher is gone" 0 "$(cat "$work/out")"
        kill -KILL "${ranks[@]}" 2>/dev/null
    fi
    ;;
startup)
    out=$("$bin/iso_startup" -n 2,48 -r 1 2>&1)
    kib=$(sed -n 's/^from 2 to 48 ranks: \([-+][0-9]*\) KiB.*/\1/p' <<<"$out")
    [ -n "$kib" ] && ((kib <= 128)) || fail "start-up grows by '$kib' KiB" $? "$out"
    ;;
esac
exit $failed
