#!/bin/bash
# valgrind.sh VALGRIND PROGRAM right|below: Valgrind knows the stacks of threads: what is right is reported by nothing, not as an
# unknown stack either; what is below a stack pointer is.
set -uo pipefail
out=$("$1" --error-exitcode=77 "$2" "$3" 2>&1)
status=$?
if [ "$3" = right ]; then
    [ $status = 0 ] && grep -q '^ok$' <<<"$out" && grep -q 'ERROR SUMMARY: 0 errors' <<<"$out" && ! grep -q 'switching stacks' <<<"$out" && exit
else
    [ $status = 77 ] && grep -q 'Invalid read' <<<"$out" && ! grep -q 'switching stacks' <<<"$out" && exit
fi
printf '%s\nstatus %s\n' "$out" $status
exit 1
