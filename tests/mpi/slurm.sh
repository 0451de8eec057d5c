#!/bin/bash
# slurm.sh BIN: programs of BIN started by srun --mpi=pmix; ci/slurm makes a Slurm for it. The last line is the
# result.
set -uo pipefail
bin=$1
failed=0 ran=0

# steps RANKS PROGRAM ARGS...: all ranks end well
steps() {
    local out status=0
    out=$(timeout -k 5 120 srun --mpi=pmix -n "$@" </dev/null 2>&1) || status=$?
    ran=$((ran + 1))
    if [ $status != 0 ]; then
        printf 'FAILED: %s (status %s)\n%s\n' "$*" $status "$out"
        failed=$((failed + 1))
    fi
}

export ISO_BACKING ISO_NODE_SIZE
for ISO_BACKING in shared private anon; do
    for ISO_NODE_SIZE in 0 1; do
        steps 4 "$bin/contents" graph
        steps 4 "$bin/contents" overlap
        steps 3 "$bin/lifecycle" again
        steps 3 "$bin/protocol" refused
    done
done
# Between nodes, by each network that there is. FI_UNIVERSE_SIZE: see tests/ranks/ofi.cmake.
for way in "ofi tcp" "ofi shm" "ucx tcp,self"; do
    read -r transport over <<<"$way"
    if [ ! -e "$bin/../lib/isomalloc/libisomalloc-$transport.so" ]; then
        echo "no transport $transport: not tried over $over"
        continue
    fi
    networks=(env ISO_NODE_SIZE=1 ISO_TRANSPORT="$transport" ISO_OFI_PROVIDER="$over" UCX_TLS="$over" FI_UNIVERSE_SIZE=8)
    for backing in private anon; do
        steps 4 "${networks[@]}" ISO_BACKING=$backing "$bin/contents" graph
        steps 4 "${networks[@]}" ISO_BACKING=$backing "$bin/contents" overlap
        steps 3 "${networks[@]}" ISO_BACKING=$backing "$bin/lifecycle" again
        steps 3 "${networks[@]}" ISO_BACKING=$backing "$bin/protocol" refused
    done
done
unset ISO_BACKING ISO_NODE_SIZE
for test in base_taken two_jobs one_fails forked; do
    steps 3 "$bin/lifecycle" $test
done
steps 16 "$bin/protocol" base
if [ -x "$bin/guest" ]; then
    for order in iMFf iMfF MiFf MifF if; do
        steps 3 "$bin/guest" $order
    done
fi
# A job that must not start: without PMIx srun's ranks must not become jobs of one.
ran=$((ran + 1))
out=$(timeout -k 5 60 srun --mpi=none -n 2 "$bin/protocol" base 2>&1)
if [ $? = 0 ] || [ "$(grep -c 'SLURM_STEP_NUM_TASKS.*srun --mpi=pmix' <<<"$out")" != 2 ]; then
    printf 'FAILED: srun --mpi=none\n%s\n' "$out"
    failed=$((failed + 1))
fi
echo "$ran jobs by srun, $failed failed"
exit $((failed > 0))
