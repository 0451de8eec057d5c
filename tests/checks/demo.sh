#!/bin/bash
# demo.sh DEMO LAUNCHER: the main job on real input, and on input that it must refuse.
set -euo pipefail
demo=$1 run=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# Some text of which the demo's answers are known; long enough for several slots.
for ((i = 0; i < 20000; i++)); do echo "line$i common word$((i % 977)) pre$((i % 31))fix"; done >"$work/text"
echo "unique-needle" >>"$work/text"
: >"$work/empty"

# ok NAME RANKS PATTERN COMMAND...: ends with 0, last line says so, output matches.
ok() {
    local name=$1 ranks=$2 pattern=$3 status=0 last
    shift 3
    "$@" >"$work/out" 2>"$work/err" || status=$?
    last=$(tail -n 1 "$work/out")
    if [ $status != 0 ] || ! grep -Eq "^iso_demo: ok ranks $ranks transport [a-z]+ backing [a-z]+" <<<"$last" ||
        ! grep -Eq "$pattern" "$work/out"; then
        echo "FAILED: $name (status $status; pattern $pattern)"
        cat "$work/out" "$work/err"
        failed=1
    fi
}

# refused NAME PATTERN COMMAND...: another status, no ok line, a message that matches.
refused() {
    local name=$1 pattern=$2 status=0
    shift 2
    "$@" >"$work/out" 2>"$work/err" || status=$?
    if [ $status = 0 ] || grep -q "iso_demo: ok" "$work/out" || ! grep -Eq "$pattern" "$work/err"; then
        echo "FAILED: $name (status $status; pattern $pattern)"
        cat "$work/out" "$work/err"
        failed=1
    fi
}

for ranks in 1 2 4 5; do
    ok "$ranks ranks" $ranks "^pack\+copy\+unpack" "$run" -n $ranks "$demo" -f "$work/text"
done
ok "default text" 4 "american-english|words|dict" "$run" -n 4 "$demo"
ok "no launcher" 1 "self" "$demo" -f "$work/text"
ok "shared backing hands over" 2 "handover +inside" env ISO_BACKING=shared "$run" -n 2 "$demo" -f "$work/text"
ok "private backing puts" 2 "put +inside" env ISO_BACKING=private "$run" -n 2 "$demo" -f "$work/text"
ok "anon backing puts" 2 "put +inside" env ISO_BACKING=anon "$run" -n 2 "$demo" -f "$work/text"
ok "pretended nodes" 4 "put +between" env ISO_NODE_SIZE=1 "$run" -n 4 "$demo" -f "$work/text"
ok "pretended nodes of two" 4 "handover +inside" env ISO_NODE_SIZE=2 ISO_BACKING=shared "$run" -n 4 "$demo" -f "$work/text"
ok "both kinds of hop" 4 "put +between" env ISO_NODE_SIZE=2 ISO_BACKING=shared "$run" -n 4 "$demo" -f "$work/text"
ok "a query" 2 "'needle' occurs in line 20001\$" "$run" -n 2 "$demo" -f "$work/text" -q needle
ok "a query without an answer" 2 "'haystack' does not occur" "$run" -n 2 "$demo" -f "$work/text" -q haystack
ok "the default file" 2 "^/.*: [0-9]+ words" "$run" -n 2 "$demo" -r 1
ok "a file without a length" 2 "words" "$run" -n 2 "$demo" -f /proc/cpuinfo
refused "a pipe" "not a regular file" "$run" -n 2 "$demo" -f <(cat "$work/text")
refused "a folder" "not a regular file" "$demo" -f "$work"
for backing in shared private; do
    ok "$backing, kinds apart" 4 "^put between nodes: first hop .*later ones" env ISO_NODE_SIZE=2 ISO_BACKING=$backing "$run" -n 4 "$demo" -f "$work/text"
    grep -Eq '^(handover|put) inside nodes: ' "$work/out" || { echo "FAILED: $backing inside nodes"; failed=1; }
done
ok "a rank alone" 1 "self" "$demo" -f "$work/text"
if grep -q "times as long" "$work/out"; then echo "FAILED: no hop is compared with packing"; failed=1; fi
for ranks in 1 2; do # what cannot be written is a failure
    if "$run" -n $ranks "$demo" -f "$work/text" >/dev/full 2>"$work/err" || ! grep -q "writing the output" "$work/err"; then
        echo "FAILED: full output, $ranks ranks"; failed=1
    fi
done
refused "a missing file" "$work/none" "$run" -n 2 "$demo" -f "$work/none"
refused "an empty file" "no word" "$run" -n 2 "$demo" -f "$work/empty"
refused "a bad option" "usage" "$demo" -x
refused "a bad number" "1 to 1000" "$demo" -r zero
refused "a byte changed on the way" "checksum" "$run" -n 3 "$demo" -f "$work/text" --break
refused "a byte changed in a put" "checksum" env ISO_NODE_SIZE=1 "$run" -n 3 "$demo" -f "$work/text" --break
for path in "shared 2" "private 1" "anon 1"; do # what one job has built answers in the next, whatever its size
    read -r backing nodes <<<"$path"
    env=(env ISO_BACKING=$backing ISO_NODE_SIZE=$nodes)
    rm -f "$work/image"
    ok "$path: a checkpoint" 2 "saved in" "${env[@]}" "$run" -n 2 "$demo" -f "$work/text" --checkpoint "$work/image"
    for ranks in 2 1 3; do
        ok "$path: a restart" $ranks "'needle' occurs in line 20001\$" "${env[@]}" "$run" -n $ranks "$demo" \
            -f "$work/text" -q needle --restart "$work/image" --checkpoint "$work/image"
        grep -q "in an index of an earlier job" "$work/out" || { echo "FAILED: $path: the index was built anew"; failed=1; }
    done
done
refused "another text than the image's" "a word of the file is not in the index" "$run" -n 2 "$demo" --restart "$work/image"
refused "no image" "is no image of heaps" "$run" -n 2 "$demo" -f "$work/text" --restart "$work/text"
exit $failed
