#!/bin/bash
# perf.sh BIN SOURCE: what the programs say of themselves, and iso_mallocbench. No figure is judged (iso_perftest: tests/tools).
set -uo pipefail
bin=$1 source=$2
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

refused "$bin/iso_bounds" -x
# perf/bounds of the sources, with a build tree's or an install's programs
refused "$source/perf/bounds" -x
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
printf '#!/bin/sh\nexit 1\n' >"$programs/iso_run" && chmod +x "$programs/iso_run" && ln -s iso_run "$programs/iso_perftest"
prints "programs of $programs\$" env PATH="$programs:$PATH" timeout 5 sh -c "'$source/perf/bounds' -q | head -n 1"
for program in iso_run iso_info iso_demo iso_perftest iso_mallocbench iso_bounds compare-ucx compare-ofi iso_plot iso_startup iso_stencil; do
    prints "^[Uu]sage: .*$program" "$bin/$program" --help
    prints "^[Uu]sage: .*$program" "$bin/$program" -h
done
# each option that a program's help has is in its man page
for page in "$source"/man/*.1; do
    program=$(basename "$page" .1)
    [ -x "$bin/$program" ] || continue # is not built everywhere
    text=$(sed 's/\\-/-/g' "$page")
    for option in $("$bin/$program" -h | grep -oE '^ +--?[a-zA-Z][a-z-]*(( [A-Z]+)?, --[a-z-]+)?' | grep -oE -- ' --?[a-zA-Z][a-z-]*'); do
        grep -qE -- "(^|[^-a-z])$option($|[^-a-z])" <<<"$text" || { echo "FAILED: $option of $program is not in its man page"; failed=1; }
    done
done
prints '^time, ms' "$bin/iso_mallocbench" -r 1 -w batch-same
refused "$bin/iso_mallocbench" -w nonsense
exit $failed
