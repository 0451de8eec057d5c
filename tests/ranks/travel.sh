#!/bin/bash
# travel.sh LAUNCHER PROGRAM refused|restart: what ranks whose addresses are randomised say of a thread that wants to
# migrate; and that a program which executes itself again has none of it.
set -uo pipefail
launcher=$1 program=$2 what=$3
if [ "$what" = restart ]; then
    "$launcher" -n 2 "$program" depth restart
    exit
fi
out=$("$launcher" -n 2 "$program" refused 2>&1)
status=$?
if [ $status != 0 ] || ! grep -qE "^\[1\] isomalloc: ERROR heap 0x[0-9a-f]+ has stacks and cannot come here: '[^']+' lies at 0x[0-9a-f]+ there and at 0x[0-9a-f]+ here: start the ranks without randomisation" <<<"$out"; then
    printf '%s\nstatus %s\n' "$out" $status
    exit 1
fi
