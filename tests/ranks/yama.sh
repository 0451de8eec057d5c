#!/bin/bash
# yama.sh LAUNCHER PROGRAM: where Yama restricts ptrace to descendants, ranks reach each other's anonymous memory by naming their
# launcher, unless a wrapper stands between; where it forbids it, and there, they use private memory and say why. It changes a
# setting of the whole system, so it is for ci/rdma's guest, and puts it back. Status 77: no Yama here.
set -uo pipefail
run=$1 program=$2
scope=/proc/sys/kernel/yama/ptrace_scope
export ISO_TRANSPORT=loopback ISO_BACKING=anon ISO_LOG_LEVEL=info
before=$(cat $scope 2>/dev/null) || { echo 'no Yama here'; exit 77; }
trap 'echo "$before" >$scope' EXIT
failures=0

# ranks SCOPE NODES TEXT COMMAND...: two ranks that may not do what root may; one line of them has the text
ranks() {
    local scoped=$1 nodes=$2 text=$3 out
    shift 3
    echo "$scoped" >$scope || exit 1
    if ! out=$(ISO_NODE_SIZE=$nodes setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace "$run" -n 2 "$@" headers 2>&1) ||
        ! grep -qE -- "$text" <<<"$out"; then
        printf 'FAILED: ptrace_scope=%s, nodes of %s, %s (wanted: %s)\n%s\n' "$scoped" "$nodes" "$*" "$text" "$out"
        failures=1
    fi
}

instead='WARN backing private instead of anon, at all ranks: .*process_vm_writev: Operation not permitted.*kernel.yama.ptrace_scope=0'
for nodes in 1 2; do
    ranks 0 $nodes 'backing anon, node of' "$program"
    ranks 1 $nodes 'backing anon, node of' "$program"
    # shellcheck disable=SC2016 # the wrapper is to expand them
    ranks 1 $nodes "$instead" sh -c '"$@"; exit' - "$program"
    ranks 2 $nodes "$instead" "$program"
done
exit $failures
