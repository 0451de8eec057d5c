#!/bin/bash
# stages.sh LAUNCHER PROGRAM ROUNDS end|stop [WAY...]: at every stage of a migration its source, and its target, ends
# or is stopped for longer than ISO_TIMEOUT. Backing and nodes are set by the caller. WAY: fresh, granted, object, alone;
# the first two if none is given.
set -uo pipefail
run=$1 program=$2 rounds=$3 end=$4
shift 4
(($#)) || set -- fresh granted
failed=0 tried=0
suffix=
[ "$end" = stop ] && suffix=:stop

try() {
    local way=$1 victim=$2 stage=$3 out status survivors
    out=$(ISO_TEST_AT=$victim:$stage$suffix timeout 60 "$run" -n 3 --keep-going "$program" "$way" "$end" "$victim" "$stage" 2>&1)
    status=$?
    [ $status = 77 ] && return
    tried=$((tried + 1))
    survivors=$(grep -c '^survivor' <<<"$out")
    if [ "$survivors" != "$([ "$end" = stop ] && echo 3 || echo 2)" ] || grep -q 'not so\|gives' <<<"$out"; then
        printf 'FAILED: %s, %s of rank %s at %s (status %s)\n%s\n' "$way" "$end" "$victim" "$stage" $status "$out"
        failed=1
    fi
}

for ((round = 0; round < rounds; round++)); do
    for way in "$@"; do
        for stage in frozen reserve_sent granted put_some put_all offered commit_sent let_go done_sent; do
            try $way 0 $stage
        done
        for stage in reserve_came grant_sent commit_came taken ack_sent done_came owned; do
            try $way 1 $stage
        done
    done
done
echo "$tried migrations with an end at a stage"
[ $tried -ge $((10 * rounds)) ] || { echo "FAILED: hardly any stage is on this path"; failed=1; }
exit $failed
