#!/bin/bash
# forbidden.sh <forbid> <bin folder> <folder of modules>: where the system forbids process_vm_writev, as containers do, a job takes
# private memory and says why, iso_info advises, and what cannot do without is refused; so are memory objects. Status 77: no seccomp here.
set -uo pipefail
forbid=$1 bin=$2 modules=$3
failures=0
unset ISO_BACKING ISO_NODE_SIZE

fail() {
    echo "FAIL: $1"
    failures=1
}

"$forbid" process_vm_writev true
[ $? != 77 ] || exit 77

job=("$bin/iso_run" -n 2 "$bin/iso_perftest" -n 2)
output=$(ISO_BACKING=anon "$forbid" process_vm_writev "${job[@]}" 2>&1) || fail "ISO_BACKING=anon: $output"
grep -q 'WARN backing private instead of anon, at all ranks: .*process_vm_writev: Operation not permitted.*a container must allow the call' <<<"$output" &&
    grep -q ': backing private,' <<<"$output" || fail "ISO_BACKING=anon does not say what is used instead: $output"
output=$(ISO_NODE_SIZE=1 ISO_LOG_LEVEL=info "$forbid" process_vm_writev "${job[@]}" 2>&1) || fail "nodes of one: $output"
grep -q 'INFO backing private instead of anon' <<<"$output" && grep -q ': backing private,' <<<"$output" ||
    fail "nodes of one do not say what is used: $output"
if [ -e "$modules/libisomalloc-ofi.so" ]; then
    ! output=$(ISO_NODE_SIZE=1 ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=shm "$forbid" process_vm_writev "${job[@]}" 2>&1) &&
        grep -q 'provider shm needs process_vm_writev, which the system forbids' <<<"$output" || fail "provider shm: $output"
fi
output=$("$forbid" process_vm_writev "$bin/iso_info" 2>&1) || fail "iso_info: $output"
grep -q '^advice: process_vm_writev is refused (Operation not permitted): .*ISO_BACKING=private' <<<"$output" ||
    fail "iso_info gives no advice: $output"
! "$bin/iso_info" 2>&1 | grep -q '^advice: process_vm_writev' || fail "iso_info advises where nothing is forbidden"

# Without memory objects there is no node of several ranks: what forbids them is named, and the size of the space is not blamed.
! output=$("$forbid" memfd_create "${job[@]}" 2>&1) && grep -q 'ERROR loopback: memfd_create for the inbox: .*a container must allow the call' <<<"$output" ||
    fail "two ranks without memory objects: $output"
! output=$(ISO_BACKING=private "$forbid" memfd_create "$bin/iso_perftest" -t heaps -n 2 2>&1) &&
    grep -q 'ERROR cannot create the memory object of the iso space .*: Operation not permitted; allow memfd_create' <<<"$output" ||
    fail "a memory object that is forbidden: $output"
output=$("$forbid" memfd_create "$bin/iso_perftest" -t heaps -n 2 2>&1) || fail "one rank needs none: $output"
exit $failures
