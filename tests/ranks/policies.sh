#!/bin/bash
# policies.sh LAUNCHER PROGRAM: jobs say, in the log, what they register and why (ISO_REGISTER), and what cannot be is
# refused in one line. The environment names a transport that pins (`checking`).
set -uo pipefail
export ISO_NODE_SIZE=1 ISO_BACKING=private ISO_LOG_LEVEL=info

# says <text> [<NAME=value>...]: a job that goes well says it
says() {
    local text=$1 out
    shift
    if ! out=$(env "$@" "${job[@]}" 2>&1) || ! grep -qF -- "$text" <<<"$out"; then
        printf '%s\n%s: not said, or it failed: %s\n' "$out" "$*" "$text"
        exit 1
    fi
}

# refuses <text> [<NAME=value>...]: a job that cannot be says so, and nothing else at each rank
refuses() {
    local text=$1 out
    shift
    if out=$(env ISO_LOG_LEVEL=error "$@" "${job[@]}" 2>&1) || ! grep -qF -- "$text" <<<"$out"; then
        printf '%s\n%s: not said, or it went well: %s\n' "$out" "$*" "$text"
        exit 1
    fi
}

job=("$1" -n 2 "$2" headers)
says 'registers window: at most' ISO_SPACE_SIZE=16T
says 'would be pinned' ISO_SPACE_SIZE=16T
says 'registers window: at most 16 MiB at a time (ISO_PIN_LIMIT)' ISO_PIN_LIMIT=16M
says 'registers space: all of it, 256 MiB, fits what may be pinned' ISO_SPACE_SIZE=256M
says 'registers space: as ISO_REGISTER says' ISO_SPACE_SIZE=256M ISO_REGISTER=space
says 'registers space: nothing is pinned by that' ISO_TRANSPORT=loopback
says 'registers window: at most 16 MiB' ISO_TRANSPORT=loopback ISO_REGISTER=window ISO_PIN_LIMIT=16M
says 'no page of the shared iso space is given back' ISO_BACKING=shared ISO_PIN_LIMIT=16M
refuses 'no device here fetches pages on demand' ISO_REGISTER=odp
refuses 'nothing here pins memory' ISO_REGISTER=odp ISO_TRANSPORT=loopback
refuses 'ISO_REGISTER=space pins 256 MiB, and ISO_PIN_LIMIT is 64 MiB' ISO_REGISTER=space \
    ISO_SPACE_SIZE=256M ISO_PIN_LIMIT=64M
refuses 'ISO_PIN_LIMIT allows 1.0 MiB to be registered, and 4 MiB are the least' ISO_PIN_LIMIT=1M

# Ranks of one job may have different policies: each says which in its first words.
job=("$1" -n 2 bash -c '((ISO_LOCAL_RANK == 0)) && export ISO_REGISTER=window ISO_PIN_LIMIT=16M; exec "$@"' - "$2" headers)
says 'registers window' ISO_SPACE_SIZE=256M ISO_REGISTER=space
