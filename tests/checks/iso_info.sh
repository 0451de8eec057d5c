#!/bin/bash
# iso_info as a user meets it: options, output, exit statuses.
#   iso_info.sh <iso_info> <include folder>
set -uo pipefail

info=$1 include=$2
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
failures=0

fail() {
    echo "FAIL: $1"
    sed 's/^/  stderr: /' "$errors"
    failures=1
}

# run <expected status> <arguments>...: output in $output, standard error in the file $errors
run() {
    local expected=$1 status
    shift
    output=$("$info" "$@" 2>"$errors")
    status=$?
    ((status == expected)) || fail "iso_info $*: status $status instead of $expected"
}

version=$(sed -nE 's/^#define ISO_VERSION_(MAJOR|MINOR|PATCH) ([0-9]+)$/\2/p' "$include/isomalloc/isomalloc.h" |
    paste -sd.)
run 0 -v
[[ $output == "$version" ]] || fail "-v says '$output', the header $version"

run 0 -h
[[ $output == usage:* ]] || fail "-h does not show the usage"

run 0 -c
[[ $(grep -cE '^ISO_[A-Z_]+=[^ ]*  +[^ ].{10}' <<<"$output") == $(wc -l <<<"$output") ]] ||
    fail "-c has lines that are no 'ISO_NAME=default  help'"
for field in $(sed -n '/^typedef struct iso_params {/,/^}/p' "$include/isomalloc/isomalloc.h" |
    sed -nE 's/^ [^;]*[ *]([a-z_]+);.*/\1/p' | grep -vE '^(struct_size|caller_bootstrap|transport_shared|iso_params_t|(arrival|admit)(_arg)?|image_rank_arg)$'); do
    [[ $field == registration ]] && field=register # which is a word of C
    grep -q "^ISO_${field^^}=" <<<"$output" || fail "-c does not list ISO_${field^^}"
done

for arguments in -x --nothing word '-v word'; do
    # shellcheck disable=SC2086 # two arguments in the last
    run 2 $arguments
    [[ -z $output ]] || fail "$arguments: writes to standard output"
    (($(wc -l <"$errors") == 1)) || fail "$arguments: not one line of complaint"
done

run 0
for line in '^libisomalloc ' '^  page size  +[0-9]+ KiB$' '^ +on request .MADV_COLLAPSE.: anonymous memory (yes|no), shared memory (yes|no)$' '^  base  +0x[0-9a-f]+00000$' \
    '^  size  +[0-9.]+ [MGTP]iB, [0-9]+ slots$' '^  shared  +available$' '^  private  +available$' \
    '^  anon  +available$' '^  auto  +chooses anon here$' '^  registered  +nothing: a job of one rank ' \
    '^ +registers space: nothing is pinned by that$'; do
    grep -qE "$line" <<<"$output" || fail "no line '$line' in: $output"
done

output=$(ulimit -n 256 && "$info" 2>"$errors")
grep -q '^advice: only 256 files' <<<"$output" || fail "no advice about a small RLIMIT_NOFILE"

output=$(ISO_SPACE_SIZE=64M "$info" 2>"$errors")
grep -qE '^  size  +64 MiB, 32 slots$' <<<"$output" || fail "ISO_SPACE_SIZE does not show"

output=$(ISO_REGISTER=window ISO_PIN_LIMIT=64M "$info" 2>"$errors")
grep -qE '^ +registers window: at most 64 MiB at a time .ISO_PIN_LIMIT.' <<<"$output" || fail "ISO_REGISTER does not show"

export ISO_TIMEOUT=0
run 1
grep -q ISO_TIMEOUT "$errors" || fail "a wrong setting is not named"
unset ISO_TIMEOUT

"$info" -c >/dev/full 2>"$errors"
(($? == 1)) || fail "a full disk is not reported"

exit $failures
