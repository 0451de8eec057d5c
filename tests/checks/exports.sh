#!/bin/bash
# libisomalloc.so exports exactly the functions that the headers declare with ISO_API, needs nothing
# but libc, and the archive defines no global name that could clash with a program's or the other libraries'. The headers
# compile without a warning.
#   exports.sh <C compiler> <include folder> <libisomalloc.so> <libisomalloc.a>
set -euo pipefail

cc=$1 include=$2 shared=$3 static=$4
failures=0

# Preprocessed, a public declaration starts with the attribute that ISO_API stands for; its name is
# the word before the first parenthesis. iso_mpi.h wants MPI, and nothing of it is in the library;
# converse.h and thread.h are of libraries of their own.
declared=$(for header in "$include"/isomalloc/*.h; do
    [[ $header == */iso_mpi.h || $header == */converse.h || $header == */thread.h ]] || echo "#include \"$header\""
done |
    "$cc" -E -P -I "$include" -x c - | tr '\n' ' ' |
    grep -oE '__attribute__\(\(visibility\("default"\)\)\)[^;{]*' |
    sed -E 's/^__attribute__\(\(visibility\("default"\)\)\)//; s/^[^(]*\b([A-Za-z_][A-Za-z_0-9]*) *\(.*$/\1/' |
    sort -u)
exported=$(nm -D --defined-only "$shared" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u)

if (($(wc -l <<<"$declared") < 10)); then
    echo "FAIL: found no public declarations in $include/isomalloc: $declared"
    exit 1
fi
if [[ $declared != "$exported" ]]; then
    echo "FAIL: declared with ISO_API (<) and exported (>) differ:"
    diff <(echo "$declared") <(echo "$exported") | grep '^[<>]'
    failures=1
fi
if grep -vE '^(iso|pup)_' <<<"$exported"; then
    echo "FAIL: exported names above do not start with iso_, or with Converse's pup_"
    failures=1
fi
if nm -g --defined-only "$static" | awk 'NF == 3 { print $3 }' | grep -vE '^(iso|pup)_'; then
    echo "FAIL: global names above of $static do not start with iso_, or with Converse's pup_"
    failures=1
fi
if nm -D "$shared" | grep -E '@@?ISOMALLOC' | grep -vE ' [TAi] '; then
    echo "FAIL: the exports above are not functions"
    failures=1
fi
converse=$(dirname "$shared")/libisomalloc-converse.so
declared=$("$cc" -E -P -I "$include" "$include/isomalloc/converse.h" | grep -oE '\b(CmiIsomalloc|Cth)[A-Za-z]*\(' | tr -d '(' | sort -u)
[[ -e $(dirname "$shared")/libisomalloc-thread.so ]] || # then it has no threads either
    declared=$(grep -vE '^Cth|^CmiIsomallocGetThreadContext$' <<<"$declared")
exported=$(nm -D --defined-only "$converse" | awk '$2 == "T" { print $3 }' | sort -u)
if [[ $(wc -w <<<"$declared") -lt 20 || $declared != "$exported" ]]; then
    echo "FAIL: what converse.h declares (<) and $converse exports (>) differ:"
    diff <(echo "$declared") <(echo "$exported") | grep '^[<>]'
    failures=1
fi
thread=$(dirname "$shared")/libisomalloc-thread.so
if [[ -e $thread ]]; then # not for every processor
    declared=$("$cc" -E -P -I "$include" "$include/isomalloc/thread.h" | grep -oE '\biso_threads?_[a-z_]*\(' | tr -d '(' | sort -u)
    exported=$(nm -D --defined-only "$thread" | awk '$2 == "T" { print $3 }' | sort -u)
    if [[ $(wc -w <<<"$declared") -lt 20 || $declared != "$exported" ]]; then
        echo "FAIL: what thread.h declares (<) and $thread exports (>) differ:"
        diff <(echo "$declared") <(echo "$exported") | grep '^[<>]'
        failures=1
    fi
fi
for library in "$thread" "$converse"; do # linked statically, a program would get one for both
    [[ ! -e $library ]] || clash=$(comm -12 <(nm -g --defined-only "$static" | awk 'NF == 3 { print $3 }' | sort -u) \
        <(nm -D --defined-only "$library" | awk '$2 == "T" { print $3 }' | sort -u))
    if [[ -n ${clash:-} ]]; then
        echo "FAIL: $static and $library both define: $clash"
        failures=1
    fi
done
needed=$(readelf -d "$shared" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]$/\1/p')
if [[ -z $needed ]] || grep -vE '^(libc|ld-linux.*|libdl|libpthread)\.so\.[0-9]+$' <<<"$needed"; then
    echo "FAIL: $shared needs more than libc"
    failures=1
fi
# Programs may be compiled with any warnings, of C99 and C++11 on.
for header in "$include"/isomalloc/*.h; do
    [[ $header != */iso_mpi.h ]] || continue
    for language in "c -std=c99 -Wstrict-prototypes" "c -std=c11" "c++ -std=c++11 -Wold-style-cast"; do
        # shellcheck disable=SC2086 # one word an option
        if ! "$cc" -x $language -fsyntax-only -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Werror \
            -I "$include" - <<<"#include \"$header\""; then
            echo "FAIL: $header does not compile as $language"
            failures=1
        fi
    done
done
exit $failures
