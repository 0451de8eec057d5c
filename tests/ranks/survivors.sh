#!/bin/bash
# survivors.sh COUNT LAUNCHER ARGS...: one rank is killed, COUNT others say at their end that all is well,
# and the launcher's status is that of the one that was killed.
set -uo pipefail
count=$1
shift
out=$("$@" 2>&1)
status=$?
if [ $status != 137 ] || [ "$(grep -c '^survivor [0-9]* ok$' <<<"$out")" != "$count" ]; then
    printf '%s\nstatus %s, %s survivors expected\n' "$out" $status "$count"
    exit 1
fi
