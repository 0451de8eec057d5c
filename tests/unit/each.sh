#!/bin/bash
# each.sh PROGRAM TESTS: runs the program's tests that a Catch2 expression names, each in a process of its own: a test that
# forks must not do so beside what an earlier one has left, such as threads of UCX's.
set -uo pipefail
program=$1 tests=$2
failed=0 count=0
names=$("$program" --list-test-names-only "$tests") # with the number of names as its status
while IFS= read -r name; do
    [ -n "$name" ] || continue
    count=$((count + 1))
    "$program" -w NoTests "${name//,/\\,}" </dev/null || { echo "FAILED: $name"; failed=1; }
done <<<"$names"
echo "$count tests"
[ $count -gt 0 ] || failed=1
exit $failed
