#!/bin/bash
# tools.sh RANKS KIND SIZE REPORT COMMAND...: runs `COMMAND... KIND SIZE` in RANKS ranks under $TOOLS_ISO_RUN or,
# for one rank, on its own. REPORT is what the tool has to say; empty: nothing, and the program ends well.
set -u
ranks=$1 kind=$2 size=$3 report=$4
shift 4
launcher=()
((ranks > 1)) && launcher=("$TOOLS_ISO_RUN" -n "$ranks")
output=$("${launcher[@]}" "$@" "$kind" "$size" 2>&1)
status=$?
if [[ -z $report ]]; then
    ((status == 0)) && ! grep -qE 'ERROR|Invalid (read|write)' <<<"$output" && exit 0
elif ((status != 0)) && grep -qE "$report" <<<"$output"; then
    exit 0
fi
echo "status $status, wanted: '${report:-nothing}'; got:"
echo "$output"
exit 1
