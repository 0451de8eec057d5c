#!/bin/bash
# An installed prefix works where it is moved to: programs, modules, pkg-config and CMake package,
# shared and static, for a project that knows nothing of this source tree.
#   install.sh <build tree> <C compiler>
set -euo pipefail

build=$1 cc=$2
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/moved
unset ISO_MODULE_PATH LD_LIBRARY_PATH

fail() {
    echo "FAIL: $1"
    exit 1
}

cmake --install "$build" --prefix "$work/first" >"$work/install.log" || {
    cat "$work/install.log"
    fail "cmake --install"
}
mv "$work/first" "$prefix"

# what is there
for file in libisomalloc.so.0 libisomalloc.a isomalloc.pc isomalloc-config.cmake isomalloc.h \
    pup.h converse.h pup_c.h libisomalloc-converse.so.0 isomalloc-converse.pc iso_mpi.h iso_info iso_run iso_demo iso_perftest iso_mallocbench iso_bounds iso_stencil iso_stencil.1 iso_info.1 iso_bounds.1 \
    compare-ucx compare-ofi iso_plot sweep.batch iso_perftest.1 compare-ucx.1 compare-ofi.1 iso_plot.1; do
    [[ -n $(find "$prefix" -name "$file") ]] || fail "$file is not installed: $(find "$prefix")"
done
lib=$(dirname "$(find "$prefix" -name 'libisomalloc.so.0')")
ls "$lib"/isomalloc/libisomalloc-*.so >/dev/null || fail "no module is installed"
if grep -rlE "$work/first|$build" "$lib/pkgconfig" "$lib/cmake" "$prefix/include"; then
    fail "the files above name the build tree or the prefix that they were installed to"
fi
for binary in "$prefix"/bin/* "$lib"/*.so "$lib"/isomalloc/*.so; do
    # shellcheck disable=SC2016 # $ORIGIN is the loader's
    if readelf -d "$binary" | grep -E 'RPATH|RUNPATH' | grep -vE '\[\$ORIGIN(/\.\./[^:]*)?\]'; then
        fail "$binary has that run path"
    fi
done

# the programs, and the modules beside the library
"$prefix/bin/iso_info" >"$work/info" || fail "iso_info: $(cat "$work/info")"
grep -q "$lib/isomalloc/libisomalloc-" "$work/info" || fail "iso_info finds no module: $(cat "$work/info")"

expect_hello() { # <program>
    local output
    output=$("$@") || fail "$*: status $?"
    grep -q '^rank 0 of [0-9]*: hello' <<<"$output" || fail "$* says: $output"
}

# a project of somebody else, by pkg-config
export PKG_CONFIG_PATH=$lib/pkgconfig
read -ra cflags < <(pkg-config --cflags isomalloc)
read -ra libs < <(pkg-config --libs isomalloc)
read -ra static_libs < <(pkg-config --static --libs isomalloc)
"$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror "${cflags[@]}" "$here/outside/outside.c" \
    -o "$work/shared" "${libs[@]}" "-Wl,-rpath,$lib"
expect_hello "$work/shared"
readelf -d "$work/shared" | grep -q 'NEEDED.*libisomalloc\.so\.0' || fail "the program is not linked with libisomalloc.so.0"
"$work/shared" | grep -q "^module [a-z]* $lib/isomalloc/" || fail "a program with the shared library finds no module"

# one of Converse's manner: <converse.h> and <pup_c.h> by one include path more
read -ra converse < <(pkg-config --cflags --libs isomalloc-converse)
"$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror "$here/outside/converse.c" -o "$work/converse" \
    "${converse[@]}" "-Wl,-rpath,$lib"
"$work/converse" | grep -q '^moved and back: 100 bytes$' || fail "a program of Converse's manner: $("$work/converse" 2>&1)"

"$cc" -std=c11 "${cflags[@]}" "$here/outside/outside.c" -o "$prefix/bin/static" \
    "${static_libs[@]/#-lisomalloc/-l:libisomalloc.a}"
if readelf -d "$prefix/bin/static" | grep libisomalloc; then
    fail "the static program needs the shared library"
fi
expect_hello "$prefix/bin/static"
if [[ $lib == "$prefix/lib" ]]; then # a static library looks there, beside the program's folder
    "$prefix/bin/static" | grep -q '^module [a-z]* .*/lib/isomalloc/' ||
        fail "a program with the static library finds no module in ../lib/isomalloc"
fi

# the same by CMake, and started by the launcher
if ! { cmake -S "$here/outside" -B "$work/outside" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -G Ninja && cmake --build "$work/outside"; } >"$work/cmake.log" 2>&1; then
    cat "$work/cmake.log"
    fail "an outside project does not build by find_package"
fi
expect_hello "$work/outside/with_shared"
expect_hello "$work/outside/with_static"
for program in with_shared with_static; do # the static one finds its modules by the launcher
    output=$("$prefix/bin/iso_run" -n 2 "$work/outside/$program") || fail "iso_run: status $?"
    [[ $(grep -c 'of 2: hello' <<<"$output") == 2 ]] || fail "iso_run -n 2 $program says: $output"
done
