#!/bin/bash
# What only tests set (ISO_TEST_*) is written down where it has to be: each variable that a source or a script reads is among
# those that core/params_names.c knows, so that a misspelt one is warned of, and has a row in tests/README.md; and no other is.
#   hooks.sh <source tree>
set -euo pipefail
cd "$1"

sorted() { grep -oE 'TEST_[A-Z_]+[A-Z]' | sort -u; }
read_by_sources=$(grep -rhoE '(getenv|from_environment)\("ISO_TEST_[A-Z_]+"' core transport perf tests | sorted)
read_by_scripts=$(grep -hoE '\$\{?ISO_TEST_[A-Z_]+' ci/* tests/*/*.sh | sorted)
read=$(printf '%s\n' "$read_by_sources" "$read_by_scripts" | sort -u)
[ "$(wc -l <<<"$read")" -ge 10 ] || { echo "FAILED: only these are read, it seems: $read"; exit 1; }

failed=0
compare() { # <where> <names>
    local difference
    difference=$(diff <(echo "$read") <(echo "$2")) || {
        echo "FAILED: what is read (<) is not what $1 has (>):"
        grep '^[<>]' <<<"$difference"
        failed=1
    }
}
compare core/params_names.c "$(sed -n '/of_tests\[\]/,/};/p' core/params_names.c | sorted)"
compare tests/README.md "$(grep -oE '^\| `ISO_TEST_.*` \|' tests/README.md | sorted)"
exit $failed
