#!/bin/bash
# perf.sh BIN: the programs that measure run and print what iso_bounds reads of them. No figure is judged.
set -uo pipefail
bin=$1
failed=0

# prints PATTERN COMMAND...: ends with 0 and has a line that matches
prints() {
    local pattern=$1 out
    shift
    if ! out=$("$@" 2>&1) || ! grep -Eq "$pattern" <<<"$out"; then
        printf 'FAILED: %s (wanted: %s)\n%s\n' "$*" "$pattern" "$out"
        failed=1
    fi
}
# refused COMMAND...: status 2 and a line of help
refused() {
    local out status=0
    out=$("$@" 2>&1) || status=$?
    if [ $status != 2 ] || ! grep -q 'usage:' <<<"$out"; then
        printf 'FAILED: %s (status %s)\n%s\n' "$*" "$status" "$out"
        failed=1
    fi
}

perftest() { "$bin/iso_run" -n 2 "$bin/iso_perftest" "$@"; }
ISO_BACKING=private ISO_NODE_SIZE=1 prints '^ratio [0-9.]+ ' perftest -s 1000000 -n 2
ISO_BACKING=anon ISO_NODE_SIZE=1 prints 'backing anon' perftest -s 1000000 -n 2
ISO_BACKING=shared prints '^ratio [0-9.]+ ' perftest -t handover -s 5000000 -n 2
ISO_BACKING=shared prints '^  warm, median +[0-9.]+ us' perftest -t handover -s 5000000 -n 2
prints '^  warm, median +[0-9.]+ us' perftest -t migrate_lat -n 2
prints 'ns a page' perftest -t visit -s 100000 -n 2
prints ' ns$' perftest -t progress -n 2
ISO_BACKING=private ISO_NODE_SIZE=1 prints '^ratio [0-9.]+ of what may be shipped' perftest -t migrate_frag -s 3000000 -D nodes:4096
prints '^  processor time in 1 s of waiting +[0-9.]+ ms' perftest -t idle
prints '^  mappings of the process +[0-9]+$' perftest -t heaps -s 100
refused "$bin/iso_perftest" -D 64
refused "$bin/iso_perftest" -D nodes:0
refused "$bin/iso_perftest" -n 0
refused "$bin/iso_perftest" -t nonsense
refused "$bin/iso_bounds" -x
for program in iso_run iso_info iso_demo iso_perftest iso_mallocbench iso_bounds; do
    prints "^[Uu]sage: .*$program" "$bin/$program" --help
    prints "^[Uu]sage: .*$program" "$bin/$program" -h
done
prints '^time, ms' "$bin/iso_mallocbench" -r 1 -w batch-same
refused "$bin/iso_mallocbench" -w nonsense
exit $failed
