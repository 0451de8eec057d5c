#!/bin/bash
# ci/check-boundaries lets a good tree pass and finds each kind of violation in a bad one.
#   boundaries.sh <ci/check-boundaries>
set -euo pipefail

check=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

fresh_tree() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/{core,transport/{loopback,ucx,common},perf,examples,tests/ranks,include/isomalloc}
    printf '#include "core/a.h"\n#include <isomalloc/isomalloc.h>\n#include <errno.h>\n' >"$tree/core/a.c"
    touch "$tree/core/a.h"
    printf '#include <isomalloc/transport.h>\n#include "ring.h"\n#include "transport/common/c.h"\n' >"$tree/transport/loopback/put.c"
    touch "$tree/transport/common/c.h"
    touch "$tree/transport/loopback/ring.h"
    printf '#include <ucp/api/ucp.h>\n#include "transport/ucx/ucx.h"\n' >"$tree/transport/ucx/ucx.c"
    touch "$tree/transport/ucx/ucx.h"
    printf '#include <isomalloc/isomalloc.h>\n#include <stdio.h>\n' >"$tree/perf/info.c"
    printf '#include <ucp/api/ucp.h>\n' >"$tree/perf/ucx_put.c"
    printf '#include <rdma/fabric.h>\n' >"$tree/perf/ofi_put.c"
    printf '#include <isomalloc/isomalloc.h>\n' >"$tree/examples/ring.c"
    printf '#include <isomalloc/isomalloc.h>\n#include "ranks.hpp"\n' >"$tree/tests/ranks/t.cpp"
    touch "$tree/tests/ranks/ranks.hpp"
    printf '#include <stddef.h>\n' >"$tree/include/isomalloc/isomalloc.h"
}

fresh_tree
if ! "$check" "$tree"; then
    echo "FAIL: a good tree does not pass"
    failures=1
fi

planted() { # <file> <line of text>
    local output
    fresh_tree
    printf '%s\n' "$2" >>"$tree/$1"
    if output=$("$check" "$tree" 2>&1); then
        echo "FAIL: $1 may have: $2"
        failures=1
    elif [[ $output != *"$1:"* ]]; then
        echo "FAIL: $1 with $2 is not named: $output"
        failures=1
    fi
}

planted core/a.c '#include <ucp/api/ucp.h>'
planted core/a.c '  #  include <infiniband/verbs.h>'
planted core/a.c '#include <rdma/fabric.h>'
planted core/a.c '#include <pmix.h>'
planted core/a.c '#include <mpi.h>'
planted core/a.h '#include "transport/loopback/ring.h"'
planted core/a.c '#include "../transport/loopback/ring.h"'
planted core/a.c '#include <core/../transport/loopback/ring.h>'
planted core/a.c '#include "transport/common/c.h"'
planted core/a.c '#include HEADER'
planted transport/loopback/put.c '#include "core/a.h"'
planted transport/loopback/put.c '#include "../../core/a.h"'
planted transport/loopback/put.c '#include <core/a.h>'
planted transport/loopback/put.c '#include "transport/ucx/ucx.h"'
planted transport/common/c.h '#include "transport/ucx/ucx.h"'
planted perf/info.c '#include "transport/common/c.h"'
planted perf/info.c '#include "core/a.h"'
planted perf/info.c '#include <core/a.h>'
planted perf/info.c '#include <mpi.h>'
planted perf/info.c '#include <ucp/api/ucp.h>'
planted perf/ofi_put.c '#include "core/a.h"'
planted perf/ucx_put.c '#include "core/a.h"'
planted examples/ring.c '#include "core/a.h"'
planted tests/ranks/t.cpp '#include "core/a.h"'
planted include/isomalloc/isomalloc.h '#include <core/a.h>'
planted include/isomalloc/isomalloc.h '#include <ucp/api/ucp.h>'

rm -rf "${tree:?}"/*
if "$check" "$tree" >/dev/null 2>&1; then
    echo "FAIL: an empty tree passes"
    failures=1
fi
exit $failures
