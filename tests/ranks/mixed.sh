#!/bin/bash
# mixed.sh LAUNCHER PROGRAM: ranks whose settings must be alike, and are not, do not become a job: one line names the rank, the setting and
# both values.
set -uo pipefail
run=$1 program=$2
failures=0

# refuses <setting> <value of rank 0> <value of rank 2> <text>
refuses() {
    local out
    # shellcheck disable=SC2016 # the rank's shell is to expand them
    if out=$(env -u "$1" "$run" -n 3 bash -c 'value=$2; ((ISO_LOCAL_RANK == 2)) && value=$3; export "$1=$value"; exec "${@:4}"' \
        - "$1" "$2" "$3" "$program" again 2>&1) || [ "$(grep -c ERROR <<<"$out")" != 1 ] || ! grep -qF -- "$4" <<<"$out"; then
        printf 'FAILED: %s %s and %s: not said, or said more than once, or it went well: %s\n%s\n' "$1" "$2" "$3" "$4" "$out"
        failures=1
    fi
}

all=': all ranks of a job must have the same'
refuses ISO_BACKING shared private "rank 2 has ISO_BACKING private, rank 0 has shared$all"
refuses ISO_BACKING auto anon "rank 2 has ISO_BACKING anon, rank 0 has auto$all"
refuses ISO_TRANSPORT auto loopback "rank 2 has ISO_TRANSPORT loopback, rank 0 has auto$all"
refuses ISO_SPACE_SIZE 1G 64M "rank 2 has ISO_SPACE_SIZE 0x4000000, rank 0 has 0x40000000$all"
refuses ISO_SPACE_BASE 0 0x300000000000 "rank 2 has ISO_SPACE_BASE 0x300000000000, rank 0 has 0$all"
refuses ISO_NODE_SIZE 1 3 "rank 2 has ISO_NODE_SIZE 0x3, rank 0 has 0x1$all"
exit $failures
