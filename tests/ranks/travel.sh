#!/bin/bash
# travel.sh LAUNCHER PROGRAM refused|outside|restart: what ranks whose addresses are randomised say of a thread that wants to
# migrate, and ranks whose addresses are not of one that is another's; and that a program which executes itself again has none of it.
set -uo pipefail
launcher=$1 program=$2 what=$3
if [ "$what" = restart ]; then
    "$launcher" -n 2 "$program" depth restart
    exit
fi
aslr=()
[ "$what" = outside ] && aslr=(--no-aslr)
out=$("$launcher" -n 2 "${aslr[@]}" "$program" "$what" 2>&1)
status=$?
if [ "$what" = outside ]; then # of a thread that is another rank's
    lines='^\[0\] isomalloc: ERROR iso_thread_resume of thread 0x[0-9a-f]+: it is not at this rank, or its heap is leaving$
^\[0\] isomalloc: ERROR iso_threads_move of thread 0x[0-9a-f]+: it is not at this rank, or is leaving$'
else
    lines="^\[1\] isomalloc: ERROR heap 0x[0-9a-f]+ has stacks and cannot come here: '[^']+' lies at 0x[0-9a-f]+ there and at 0x[0-9a-f]+ here: start the ranks without randomisation
^\[0\] isomalloc: ERROR iso_migrate of heap 0x[0-9a-f]+ to rank 1: it has stacks, and the code there is another"
fi
[ $status = 0 ] && while read -r line; do
    grep -qE "$line" <<<"$out" || { echo "no line '$line'" && status=1; }
done <<<"$lines"
if [ $status != 0 ]; then
    printf '%s\nstatus %s\n' "$out" $status
    exit 1
fi
