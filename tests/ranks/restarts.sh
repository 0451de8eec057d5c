#!/bin/bash
# restarts.sh LAUNCHER PROGRAM RUNS: with ASLR on, so that everything else of a process is somewhere else each time, an image can
# be restored each time: RUNS restarts, a part of them of two ranks, none refused.
set -uo pipefail
run=$1 program=$2 runs=$3
folder=$(mktemp -d /tmp/iso-restarts-test-XXXXXX)
trap 'rm -rf "$folder"' EXIT

if [ "$(cat /proc/sys/kernel/randomize_va_space)" = 0 ]; then
    echo "FAILED: ASLR is off here, so that nothing is tested: sysctl kernel.randomize_va_space=2"
    exit 1
fi
"$program" save "$folder" || exit 1
export ISO_IMAGES=$folder/image.0
for ((i = 0; i < runs; i++)); do
    if ((i % 4 == 3)); then job=("$run" -n 2 "$program" restart 1); else job=("$program" restart 1); fi
    out=$(timeout 60 "${job[@]}" 2>&1) || {
        printf 'FAILED: restart %s of %s: %s\n%s\n' "$i" "$runs" "${job[*]}" "$out"
        exit 1
    }
done
