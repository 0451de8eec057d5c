#!/bin/bash
# rdma.sh LAUNCHER PROGRAM WINDOWS: over an RDMA device, a job says by which lane its puts go, and it is the device's; where
# `ulimit -l` does not allow the space to be pinned, windows of it are, and where it allows none, or what is
# asked for is all of it, the job does not start, and says in one line what to set. As root, and takes off itself what lets
# root pin without a limit.
set -uo pipefail
run=$1 program=$2 windows=$3
failed=0

# expect NAME STATUS PATTERN COUNT COMMAND...: lines with the pattern are so many, and shown.
expect() {
    local name=$1 want=$2 pattern=$3 count=$4 status=0 out
    shift 4
    out=$(timeout 60 "$@" 2>&1) || status=$?
    [ $status = 0 ] || status=1
    grep -E "$pattern" <<<"$out"
    if [ $status != "$want" ] || [ "$(grep -cE "$pattern" <<<"$out")" != "$count" ]; then
        printf 'FAILED: %s (status %s)\n%s\n' "$name" $status "$out"
        failed=1
    fi
}
limited() { # <KiB> <command>...
    setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock bash -c 'ulimit -l "$1"; shift; exec "$@"' limited "$@"
}

expect "the lane" 0 'puts to rank [01]: one-sided, lane rc_verbs/' 2 "$run" -n 2 "$program" headers
export -f limited
expect "8 MiB may be pinned" 1 'isomalloc: ERROR.*ulimit -l' 2 bash -c 'limited 8192 "$@"' - "$run" -n 2 "$program" headers
expect "hardly more than UCX takes may be pinned" 1 'ERROR.*allows 2.0 MiB .*raise it to 102400 \(KiB\)' 2 \
    env ISO_SPACE_SIZE=256M bash -c 'limited 100352 "$@"' - "$run" -n 2 "$program" headers
# with the buffers that UCX has where nobody made them fewer, as rdma.cmake does
expect "the least" 0 'registers window: at most 4 MiB at a time \(ulimit -l\)' 2 \
    env -u UCX_RC_VERBS_RX_QUEUE_LEN -u UCX_UD_VERBS_RX_QUEUE_LEN ISO_SPACE_SIZE=256M bash -c 'limited 102400 "$@"' - "$run" -n 2 "$program" headers
expect "heaps of many times what may be pinned" 0 'registers window: at most 4 MiB at a time' 2 \
    env ISO_SPACE_SIZE=256M ISO_REGISTER=window ISO_PIN_LIMIT=4M bash -c 'limited 102400 "$@"' - "$run" -n 2 "$windows" large
expect "less than the space may be pinned: windows" 0 'registers window: at most 32 MiB at a time \(ulimit -l\)' 2 \
    env ISO_SPACE_SIZE=256M bash -c 'limited 131072 "$@"' - "$run" -n 2 "$program" headers
expect "less than the space may be pinned" 1 'isomalloc: ERROR.*registering 256 MiB .*96 MiB that UCX pins.*ulimit -l to 360448 ' 2 \
    env ISO_SPACE_SIZE=256M ISO_REGISTER=space bash -c 'limited 131072 "$@"' - "$run" -n 2 "$program" headers
expect "enough may be pinned" 0 'puts to rank [01]: one-sided' 2 env ISO_SPACE_SIZE=16M \
    bash -c 'limited 131072 "$@"' - "$run" -n 2 "$program" headers
exit $failed
