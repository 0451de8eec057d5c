#!/bin/bash
# without.sh <iso_info> <iso_run> <iso_perftest> <folder of modules>: on a machine without the libraries that modules need, the
# rest works, and iso_info says what is missing. Modules stand in for the machine: copies that ask for libraries of a
# name that nobody has.
set -uo pipefail
info=$1 run=$2 perftest=$3 modules=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
    echo "FAIL: $1"
    failures=1
}

cp "$modules"/libisomalloc-*.so "$work" || exit 1
export ISO_MODULE_PATH=$work
tried=0
for pair in ofi/libfabric.so ucx/libucp.so; do
    module=$work/libisomalloc-${pair%/*}.so library=${pair#*/}
    [ -e "$module" ] || continue
    absent=${library/lib/non} # as long
    LC_ALL=C sed -i "s/${library/./\\.}\\./$absent./g" "$module"
    output=$("$info" 2>&1) || fail "iso_info without $library: $output"
    grep -A1 "$module" <<<"$output" | grep -q "not usable here: cannot be loaded: $absent" ||
        fail "iso_info does not say that $library is missing: $output"
    if output=$(ISO_TRANSPORT=${pair%/*} ISO_NODE_SIZE=1 "$run" -n 2 "$perftest" -n 2 2>&1); then
        fail "ISO_TRANSPORT=${pair%/*} without $library: $output"
    fi
    grep -q "transport '${pair%/*}' cannot be loaded: $absent" <<<"$output" ||
        fail "ISO_TRANSPORT=${pair%/*} does not say that $library is missing: $output"
    tried=$((tried + 1))
done
output=$("$run" -n 2 "$perftest" -n 2 2>&1) || fail "two ranks of one host: $output"
grep -q '^Final:' <<<"$output" || fail "two ranks of one host print no figure: $output"

# Between hosts (which a PID namespace makes of a rank, nearly) `auto` goes on to the next one that can be loaded.
if [ -e "$work/libisomalloc-ucx.so" ] && [ -e "$work/libisomalloc-ofi.so" ]; then
    cp "$modules/libisomalloc-ofi.so" "$work"
    if unshare -p -f true 2>/dev/null; then
        output=$(ISO_OFI_PROVIDER=tcp "$run" -n 2 unshare -p -f "$perftest" -n 2 2>&1) || fail "two hosts without UCX: $output"
        grep -q "WARN transport 'ucx' cannot be loaded: .*auto goes on without it" <<<"$output" && grep -q 'transport ofi' <<<"$output" ||
            fail "two hosts without UCX do not say what they do: $output"
    else
        echo "no PID namespaces here: what auto takes between hosts is not tried"
    fi
fi

# Modules that were not built.
rm -f "$work"/libisomalloc-{ofi,ucx,pmix}.so
output=$("$info" 2>&1) || fail "iso_info without modules: $output"
for pair in ofi/libfabric ucx/UCX pmix/PMIx; do
    grep -Eq "^  ${pair%/*} +not here: .*built where ${pair#*/} is found" <<<"$output" ||
        fail "iso_info does not say that ${pair%/*} is missing: $output"
done
! grep -q 'local.*not here\|loopback.*not here' <<<"$output" || fail "what is there is said to be missing: $output"
echo "$tried modules without their libraries"
exit $failures
