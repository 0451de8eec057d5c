#!/bin/bash
# images.sh LAUNCHER PROGRAM RUNS: images of jobs of some ranks in jobs of as many, fewer and more, RUNS times each; what cannot be
# restored is refused when the job begins, in a line that says why. RUNS 0, for where a job takes seconds to begin: what two ranks save,
# in jobs of two and of one, and nothing else.
set -uo pipefail
run=$1 program=$2 runs=$3
folder=$(mktemp -d /tmp/iso-images-test-XXXXXX)
trap 'rm -rf "$folder"' EXIT

fail() {
    printf 'FAILED: %s\n' "$@"
    exit 1
}
job() { # <what for> COMMAND...: what it writes is in $out
    local what=$1
    shift
    out=$(timeout 60 "$@" 2>&1) || fail "$what" "$out"
}
refused() { # <pattern> COMMAND...
    local pattern=$1 out status=0
    shift
    out=$(timeout 60 "$@" 2>&1) || status=$?
    if [ $status = 0 ] || [ $status = 124 ] || ! grep -Eq "$pattern" <<<"$out"; then
        fail "not refused, or without the line: $pattern (status $status)" "$out"
    fi
}
named() { # <count> [<end of names>]: image.0:image.1:...
    local list='' i
    for ((i = 0; i < $1; i++)); do list+=${list:+:}$folder/image.$i${2-}; done
    echo "$list"
}

if [ "$runs" = 0 ]; then
    job "two ranks save" "$run" -n 2 "$program" save "$folder"
    job "two ranks restore what two have saved" env ISO_IMAGES="$(named 2)" "$run" -n 2 "$program" restart 2
    job "one rank restores it" env ISO_IMAGES="$(named 2)" ISO_MAP_IMAGES=y "$run" -n 1 "$program" restart 2
    exit 0
fi
for saved in 3 1; do
    rm -f "$folder"/image.*
    job "$saved ranks save" "$run" -n $saved "$program" save "$folder"
    for ranks in 3 1 4; do
        for ((i = 0; i < runs; i++)); do
            job "$ranks ranks restore what $saved have saved" \
                env ISO_IMAGES="$(named $saved)" ISO_MAP_IMAGES=$((i % 2)) "$run" -n $ranks "$program" restart $saved
        done
    done
done
job "three ranks save" "$run" -n 3 "$program" save "$folder"
job "three ranks restore, and save an increment" env ISO_IMAGES="$(named 3)" "$run" -n 3 "$program" increment "$folder"
job "two ranks map the increments" env ISO_MAP_IMAGES=y ISO_IMAGES="$(named 3 .next)" "$run" -n 2 "$program" restart 3
job "two ranks restore the increments" env ISO_IMAGES="$(named 3 .next)" "$run" -n 2 "$program" restart 3

rm -f "$folder"/image.*
job "two ranks save two sets" "$run" -n 2 "$program" sets "$folder"
for end in '' .next; do
    job "all of a set" env ISO_IMAGES="$(named 2 $end)" "$program" begin 1
    grep -q 'are missing' <<<"$out" && fail "a whole set is warned of" "$out"
done
# the heap is in both of these, or in none
refused 'are not of one checkpoint' env ISO_IMAGES="$folder/image.0:$folder/image.1.next" "$program" begin 1
refused 'are not of one checkpoint' env ISO_IMAGES="$folder/image.0.next:$folder/image.1" "$run" -n 2 "$program" begin 0
job "a part of a set" env ISO_IMAGES="$folder/image.1" "$run" -n 2 "$program" begin 0
[ "$(grep -c 'images of 1 of the 2 ranks that saved set 7' <<<"$out")" = 1 ] || fail "not warned once of a part of a set" "$out"

rm -f "$folder"/image.*
job "two ranks save twice, without numbers" "$run" -n 2 "$program" moments "$folder"
job "the first checkpoint" env ISO_IMAGES="$(named 2)" "$program" begin 1
job "the second" env ISO_IMAGES="$(named 2 .next)" "$program" begin 1
refused 'saved after [0-9]* calls of iso_barrier.*not of one checkpoint' env ISO_IMAGES="$folder/image.0.next:$folder/image.1" "$program" begin 0
refused 'saved after [0-9]* calls of iso_barrier.*not of one checkpoint' env ISO_IMAGES="$folder/image.1:$folder/image.0.next" "$run" -n 2 "$program" begin 0
job "a mixture that was asked for" env ISO_MIXED_IMAGES=y ISO_IMAGES="$folder/image.0.next:$folder/image.1" "$program" begin 0
rm "$folder"/image.1.next # every rank's last one is of the first checkpoint, but for rank 0
refused 'not of one checkpoint' env ISO_IMAGES="$(named 2):$folder/image.0.next" "$program" begin 1

rm -f "$folder"/image.*
job "two ranks save" "$run" -n 2 "$program" save "$folder"
job "the program says who restores" env ISO_IMAGES="$(named 2)" "$run" -n 3 "$program" shared_out 2
job "a damaged one" env ISO_IMAGES="$folder/image.0" "$run" -n 2 "$program" damaged "$folder/image.0"

start=("$run" -n 2 "$program" shared_out 0)
cp "$folder/image.0" "$folder/copy"
refused 'is named twice' env ISO_IMAGES="$folder/image.0:$folder/copy" "${start[@]}"
refused 'cannot be read: No such file' env ISO_IMAGES="$folder/none" "${start[@]}"
refused 'cannot be in one job' env ISO_IMAGES="$folder/image.0" ISO_SPACE_BASE=64G "${start[@]}"
refused 'too short for the images.*ISO_SPACE_SIZE' env ISO_IMAGES="$(named 2)" ISO_SPACE_SIZE=4M "${start[@]}"
refused 'ISO_IMAGES' env FIRST="$folder/image.0" SECOND="$(named 2)" "$run" -n 2 bash -c \
    'export ISO_IMAGES=$FIRST; [ "$ISO_LOCAL_RANK" = 0 ] || ISO_IMAGES=$SECOND; exec "$0" shared_out 0' "$program"
out=$(ISO_IMAGES=$folder/image.0 timeout 60 "$program" taken "$folder/image.0" 2>&1) || fail "taken" "$out"
grep -q 'cannot be mapped, this is there' <<<"$out" && grep -q 'can be restored at no other address' <<<"$out" ||
    fail "what is in the way is not said" "$out"
truncate -s -1 "$folder/copy"
refused 'ends at byte' env ISO_IMAGES="$folder/copy" "${start[@]}"
mkdir "$folder/later"
job "two ranks save again" "$run" -n 2 "$program" save "$folder/later"
refused 'two heaps in the images of ISO_IMAGES want the address' \
    env ISO_IMAGES="$folder/image.0:$folder/later/image.0" "${start[@]}"
job "originals that live" "$run" -n 2 "$program" alive "$folder"
