#!/bin/bash
# stencil.sh STENCIL LAUNCHER [LIBRARY]: threads that migrate between ranks compute what a serial run does; and what iso_stencil
# refuses. LIBRARY is one that it does not need: with it at one rank the code there is another, and no thread can come.
set -uo pipefail
stencil=$1 run=$2 library=${3:-}
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# same RANKS [NAME=VALUE]...: with that environment; threads migrate, if there is somewhere to go
same() {
    local ranks=$1 status=0
    shift
    env "$@" timeout 100 "$run" -n "$ranks" "$stencil" -i 60 -b 3 -r 20 -c 100 -g 2 -w 40 >"$work/out" 2>&1 || status=$?
    if [ $status != 0 ] || [ "$(tail -n 1 "$work/out")" != "result: bit-identical to the serial run" ] ||
        ! grep -Eq '^without balancing: .* 0 migrations' "$work/out" ||
        { [ "$ranks" != 1 ] && ! grep -Eq '^with balancing: .* [1-9][0-9]* migrations' "$work/out"; }; then
        echo "FAILED: $ranks ranks, $* (status $status)"
        cat "$work/out"
        failed=1
    fi
}
# refused PATTERN OPTION...
refused() {
    local pattern=$1 status=0
    shift
    "$stencil" "$@" >"$work/out" 2>&1 || status=$?
    if [ $status != 2 ] || ! grep -q -e "$pattern" "$work/out"; then
        echo "FAILED: $* (status $status)"
        cat "$work/out"
        failed=1
    fi
}

same 1
same 2 ISO_BACKING=shared
same 4 ISO_BACKING=shared ISO_NODE_SIZE=2
same 2 ISO_BACKING=private ISO_NODE_SIZE=1
same 3 ISO_BACKING=anon ISO_NODE_SIZE=2
if [ -n "$library" ]; then # it ends, and says so
    status=0
    # shellcheck disable=SC2016 # the rank's
    LIBRARY=$library timeout 60 "$run" -n 2 sh -c '[ "$ISO_LOCAL_RANK" = 0 ] || export LD_PRELOAD=$LIBRARY
        exec "$0" -i 60 -b 3 -r 20 -c 100 -g 2 -w 40' "$stencil" >"$work/out" 2>&1 || status=$?
    if [ $status != 1 ] || ! grep -Eq '^iso_stencil: rank [01]: a strip did not leave: ' "$work/out"; then
        echo "FAILED: a strip that cannot leave (status $status)"
        cat "$work/out"
        failed=1
    fi
fi
refused 'give a number from 8 to' -t 7
refused '-i x: give a number' -i x
refused 'more: no option' more
refused 'usage: iso_stencil' -z
if command -v gnuplot >/dev/null; then
    (cd "$work" && timeout 100 "$run" -n 2 "$stencil" -i 20 -r 10 -c 50 --plot "it's a load" >out 2>&1) || { cat "$work/out"; failed=1; }
    for format in svg png; do
        [ -s "$work/it's a load.$format" ] || { echo "FAILED: no picture it's a load.$format"; failed=1; }
    done
fi
exit $failed
