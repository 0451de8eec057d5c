#!/bin/bash
# gdb.sh SCRIPT PROGRAM: gdb shows the stack of a thread that waits, from where it stopped to its function, and the process
# goes on after that.
set -uo pipefail
out=$(gdb -q -batch -nx -ex 'set confirm off' -ex 'set debuginfod enabled off' -ex run -x "$1" -ex 'iso-backtrace the_thread' -ex continue "$2" 2>&1)
frames=$(grep -E '^#[0-9]+ ' <<<"$out" | grep -oE '\b(iso_thread_switch|deep|work|begin|iso_thread_entry)\b \(' | tr -d ' (\n')
if [ "$frames" != iso_thread_switchdeepdeepdeepdeepworkbeginiso_thread_entry ] || ! grep -q 'exited normally' <<<"$out"; then
    printf '%s\nframes: %s\n' "$out" "$frames"
    exit 1
fi
