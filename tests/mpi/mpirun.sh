#!/bin/bash
# mpirun.sh MPIRUN RANKS PROGRAM ARGS...: all ranks end well and say so.
set -uo pipefail
mpirun=$1 ranks=$2
shift 2
# what Open MPI wants to hear in a container with few cores; others do not know the names
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
out=$(timeout -k 5 100 "$mpirun" -n "$ranks" "$@" 2>&1)
status=$?
if [ $status != 0 ] || [ "$(grep -c '^rank [0-9]* ok$' <<<"$out")" != "$ranks" ]; then
    printf 'FAILED: status %s\n%s\n' $status "$out"
    exit 1
fi
