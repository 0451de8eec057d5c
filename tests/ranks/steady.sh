#!/bin/bash
# steady.sh LAUNCHER PROGRAM TEST: in the steady state a migration makes no call that changes what is mapped, or asks what
# is in memory, neither the library's nor the transport's, in no thread of either rank.
set -euo pipefail
calls=mmap,munmap,mremap,mprotect,madvise,process_madvise,fallocate,ftruncate,mlock,munlock,brk,memfd_create,lseek
# What a heap with stacks has left is asked for when it has been away for some 10 ms: on a busy machine some are.
[[ $3 != stacks* ]] || calls=${calls%,lseek}
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT
strace -f --seccomp-bpf -qq -e signal=none -e trace="$calls,prctl" -o "$trace" "$1" -n 2 --no-aslr "$2" "$3"

# Lines begin with the thread's number; a rank's other threads may be what makes a call, so that all count from the
# first rank's begin to the first end. A begin has to be seen from both.
awk '
    /PR_SET_NAME, "steady-begins"/ { begun++; next }
    /PR_SET_NAME, "steady-ends"/ { ended++; next }
    begun == 2 && !ended && !/prctl/ { count++; if (count <= 10) print }
    END {
        if (begun != 2 || ended != 2) { print "steady.sh: " begun " begins and " ended " ends in the trace"; exit 1 }
        if (count) { print "steady.sh: " count " calls in the steady state that change what is mapped, or ask"; exit 1 }
        print "no call that changes what is mapped in 1,000 migrations"
    }' "$trace"
