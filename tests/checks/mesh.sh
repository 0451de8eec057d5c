#!/bin/bash
# mesh.sh RANKS LAUNCHER...: the example's object visits every rank once, and the first one twice, and has the same contents
# everywhere.
set -euo pipefail
ranks=$1
shift

out=$("$@")
want=$((ranks == 1 ? 1 : ranks + 1))
[ "$(wc -l <<<"$out")" = "$want" ] || { printf 'mesh: %s visits expected:\n%s\n' "$want" "$out"; exit 1; }
for ((visit = 1; visit <= want; visit++)); do
    grep -q "^rank $(((visit - 1) % ranks)): a mesh with 1000 points, visit $visit, sum 992.515\$" <<<"$out" || {
        printf 'mesh: visit %s is not as expected:\n%s\n' $visit "$out"
        exit 1
    }
done
