#!/bin/bash
# anon.sh LAUNCHER PROGRAM: a job with backing anon uses it where a trial put succeeds; where the system
# forbids it at any one rank, every rank uses private instead, all say so, and the job does its work.
set -uo pipefail
run=$1 program=$2
failed=0

# expect NAME FORBIDDEN BACKING WARNINGS: with FORBIDDEN of three ranks not allowed to write to its peers.
expect() {
    local name=$1 forbidden=$2 backing=$3 warnings=$4 out status=0
    out=$(FORBIDDEN=$forbidden ISO_LOG_LEVEL=info timeout 60 "$run" -n 3 bash -c \
        '[ "$ISO_LOCAL_RANK" = "$FORBIDDEN" ] && export ISO_TEST_NO_VM_WRITEV=1; exec "$0" graph' "$program" 2>&1) ||
        status=$?
    if [ $status != 0 ] || [ "$(grep -c ", backing $backing, " <<<"$out")" != 3 ] ||
        [ "$(grep -c 'WARN.*private instead of anon.*Operation not permitted.*ptrace_scope' <<<"$out")" != "$warnings" ] ||
        [ "$(grep -c 'ERROR\|WARN' <<<"$out")" != "$warnings" ] ||
        { [ "$backing" = private ] && [ "$(grep -c 'private instead of anon' <<<"$out")" != 3 ]; }; then
        printf 'FAILED: %s (status %s)\n%s\n' "$name" $status "$out"
        failed=1
    fi
}

for nodes in 1 3; do
    export ISO_NODE_SIZE=$nodes ISO_BACKING=anon
    expect "anon, nodes of $nodes" none anon 0
    for rank in 0 1; do
        expect "anon forbidden at rank $rank, nodes of $nodes" $rank private 1
    done
done
export ISO_NODE_SIZE=1 ISO_BACKING=auto
expect "auto" none anon 0
expect "auto, anon forbidden at rank 2" 2 private 0
exit $failed
