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
echo "$tried modules without their libraries"
exit $failures
