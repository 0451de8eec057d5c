#!/bin/bash
# ring.sh RING [LAUNCHER...]: the example's list has one item a rank and one more, all at different
# addresses, the last one allocated at rank 0; and it is the program that the README shows.
set -euo pipefail
readme=$1 source=$2 ranks=$3
shift 3

out=$("$@")
want=$((ranks == 1 ? 1 : ranks + 1))
if [ "$(wc -l <<<"$out")" != "$want" ] || [ "$(cut -d' ' -f1 <<<"$out" | sort -u | wc -l)" != "$want" ]; then
    printf 'ring: %s different addresses expected:\n%s\n' "$want" "$out"
    exit 1
fi
for ((rank = 0; rank < ranks; rank++)); do
    grep -q "was allocated at rank $rank\$" <<<"$out" || { echo "ring: nothing of rank $rank"; exit 1; }
done
sed -n '/^```c$/,/^```$/p' "$readme" | sed '/^```/d' | diff - "$source" || {
    echo "the README's program is not $source"
    exit 1
}
