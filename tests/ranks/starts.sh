#!/bin/bash
# starts.sh LAUNCHER PROGRAM RUNS: jobs that must not start say why in a line that names the value, and
# nobody hangs; jobs that start have the same base every time.
set -uo pipefail
run=$1 program=$2 runs=$3
failed=0

# refused NAME PATTERN COMMAND...
refused() {
    local name=$1 pattern=$2 status=0 out
    shift 2
    out=$(timeout 30 "$@" 2>&1) || status=$?
    if [ $status = 0 ] || [ $status = 124 ] || ! grep -Eq "$pattern" <<<"$out"; then
        printf 'FAILED: %s (status %s, pattern %s)\n%s\n' "$name" $status "$pattern" "$out"
        failed=1
    fi
}
two() { "$run" -n 2 "$@"; }
# One setting in rank 0 only.
one_differs() {
    env NAME="$1" VALUE="$2" "$run" -n 2 bash -c \
        '[ "$ISO_LOCAL_RANK" = 0 ] && export "$NAME=$VALUE"; exec "$0" base' "$program"
}
export -f two one_differs
export run program

refused "space larger than possible" "ISO_SPACE_SIZE" env ISO_SPACE_SIZE=1P "$run" -n 2 "$program" base
refused "space that is no multiple" "SPACE_SIZE.*3M|3M.*SPACE_SIZE" env ISO_SPACE_SIZE=3M "$run" -n 2 "$program" base
refused "base that is taken" "cannot be mapped, this is there: .*ISO_SPACE_BASE" env ISO_SPACE_BASE=0x7ffff7000000 ISO_SPACE_SIZE=16M "$run" --no-aslr -n 2 "$program" base
refused "base where nothing can be" "ISO_SPACE_BASE" env ISO_SPACE_BASE=0x7ff000000000 ISO_SPACE_SIZE=64G "$run" -n 2 "$program" base
refused "unknown transport" "carrier-pigeon" env ISO_TRANSPORT=carrier-pigeon "$run" -n 2 "$program" base
refused "unknown transport, alone" "carrier-pigeon" env ISO_TRANSPORT=carrier-pigeon "$program" base
refused "bad backing" "ISO_BACKING.*paper" env ISO_BACKING=paper "$run" -n 2 "$program" base
refused "bad timeout" "ISO_TIMEOUT" env ISO_TIMEOUT=-1 "$run" -n 2 "$program" base
refused "space sizes differ" "ISO_SPACE_SIZE" bash -c 'one_differs ISO_SPACE_SIZE 1G'
refused "backings differ" "ISO_BACKING" bash -c 'one_differs ISO_BACKING private'
refused "node sizes differ" "ISO_NODE_SIZE" bash -c 'one_differs ISO_NODE_SIZE 1'
refused "base beyond all addresses" "ISO_SPACE_BASE=0xffff.*beyond" env ISO_SPACE_BASE=0xffffffff80000000 "$program" base
refused "RLIMIT_FSIZE too small" "ulimit -f" env ISO_BACKING=private bash -c 'ulimit -f 1000; "$program" base'
# One descriptor less than it starts with; how many that are depends on those that it inherits.
one_descriptor_short() {
    local n said= now
    for n in $(seq 4 64); do
        if now=$(ulimit -Sn "$n"; "$program" base 2>&1); then
            printf '%s\n' "$said"
            return 1
        fi
        said=$now
    done
}
export -f one_descriptor_short
refused "RLIMIT_NOFILE too small" "ulimit -n" bash -c one_descriptor_short
refused "mpirun without its module" "OMPI_COMM_WORLD_SIZE.*pmix" env ISO_MODULE_PATH=/nowhere OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0 "$program" base
refused "srun without its module" "SLURM_STEP_NUM_TASKS.*pmix" env ISO_MODULE_PATH=/nowhere SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 "$program" base
refused "pmix without its module" "PMIX_NAMESPACE.*pmix" env ISO_MODULE_PATH=/nowhere PMIX_NAMESPACE=x PMIX_RANK=0 "$program" base
if [ -z "${ISO_TEST_NO_AS_LIMIT:-}" ]; then # a sanitizer's shadow alone is over any limit
    refused "RLIMIT_AS too small" "RLIMIT_AS.*ISO_SPACE_SIZE" bash -c 'ulimit -v 4000000; "$run" -n 2 "$program" base'
fi

env OMPI_COMM_WORLD_SIZE=2 ISO_BOOTSTRAP=single "$program" base >/dev/null || { echo "FAILED: single"; failed=1; }

bases=$(for ((i = 0; i < runs; i++)); do "$run" -n 2 "$program" base || echo "start $i was refused"; done | sort | uniq -c)
if [ "$(wc -l <<<"$bases")" != 1 ] || ! grep -q "^ *$runs base 0x" <<<"$bases"; then
    printf 'FAILED: %s starts, one base:\n%s\n' "$runs" "$bases"
    failed=1
fi
exit $failed
