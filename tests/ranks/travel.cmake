# Threads that migrate: travel.cpp, compiled as programs are: what compilers keep on a stack differs.
set(iso_travel_flags_O0 -O0)
set(iso_travel_flags_O2 -O2)
set(iso_travel_flags_O3_lto -O3 -flto)
set(iso_travellers "")
foreach(how O0 O2 O3_lto)
    add_executable(travel_${how} travel.cpp)
    target_compile_options(travel_${how} PRIVATE ${iso_travel_flags_${how}} -fstack-protector-strong)
    target_link_options(travel_${how} PRIVATE ${iso_travel_flags_${how}})
    target_link_libraries(travel_${how} PRIVATE isomalloc-thread isomalloc iso_build_flags)
    list(APPEND iso_travellers travel_${how})
endforeach()
# The other compiler, where it is there: the library is one, whatever its programs are compiled with.
find_program(ISO_CLANGXX clang++)
set(iso_clang_target "")
if(CMAKE_CROSSCOMPILING)
    set(iso_clang_target --target=${CMAKE_SYSTEM_PROCESSOR}-linux-gnu)
endif()
if(ISO_CLANGXX AND NOT ISO_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    set(hows O0 O2 O3_lto)
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/lto.cpp "int main() {}\n")
    execute_process(COMMAND ${ISO_CLANGXX} -flto ${CMAKE_CURRENT_BINARY_DIR}/lto.cpp -o ${CMAKE_CURRENT_BINARY_DIR}/lto
        RESULT_VARIABLE no_lto OUTPUT_QUIET ERROR_QUIET)
    if(no_lto)
        message(STATUS "travel.cpp by clang++ is not optimised at link time: its linker plug-in is missing (Debian: llvm-14-linker-tools)")
        list(REMOVE_ITEM hows O3_lto)
    endif()
    foreach(how IN LISTS hows)
        set(program ${ISO_BIN_DIR}/travel_clang_${how})
        add_custom_command(OUTPUT ${program} DEPENDS travel.cpp ranks.hpp isomalloc-thread
            COMMAND ${ISO_CLANGXX} ${iso_clang_target} -std=c++20 -Wall -Wextra -Werror -UNDEBUG ${iso_travel_flags_${how}} -fstack-protector-strong
                -I ${PROJECT_SOURCE_DIR}/include ${CMAKE_CURRENT_SOURCE_DIR}/travel.cpp -o ${program}
                -L ${ISO_LIB_DIR} -lisomalloc-thread -lisomalloc -Wl,-rpath,${ISO_LIB_DIR} VERBATIM)
        add_custom_target(travel_clang_${how} ALL DEPENDS ${program})
        list(APPEND iso_travellers travel_clang_${how})
    endforeach()
else()
    message(STATUS "travel.cpp is compiled by ${CMAKE_CXX_COMPILER_ID} only")
endif()

# Many of them.
add_executable(walks walks.cpp)
target_compile_options(walks PRIVATE ${iso_travel_flags_O2} -fstack-protector-strong)
target_link_libraries(walks PRIVATE isomalloc-thread isomalloc iso_build_flags)

# iso_travel_test(<name> <program> <ranks> <test> [ENV <NAME=value>...])
function(iso_travel_test name program ranks test)
    cmake_parse_arguments(PARSE_ARGV 4 arg "" "" "ENV")
    add_test(NAME "ranks: travel: ${name}"
        COMMAND ${iso_launcher} -n ${ranks} --no-aslr ${CMAKE_CROSSCOMPILING_EMULATOR} ${ISO_BIN_DIR}/${program} ${test})
    set_tests_properties("ranks: travel: ${name}" PROPERTIES TIMEOUT 120 PROCESSORS 2 LABELS ranks
        ENVIRONMENT "${iso_test_environment};${arg_ENV}")
endfunction()

foreach(program IN LISTS iso_travellers)
    iso_travel_test("depth, ${program}" ${program} 3 depth ENV ISO_BACKING=private)
endforeach()
foreach(path shared/4 private/4 private/1 anon/1)
    string(REGEX MATCH "(.*)/(.*)" path ${path})
    set(env ISO_BACKING=${CMAKE_MATCH_1} ISO_NODE_SIZE=${CMAKE_MATCH_2})
    set(name "${CMAKE_MATCH_1}, nodes of ${CMAKE_MATCH_2}")
    iso_travel_test("depth, ${name}" travel_O2 3 depth ENV ${env})
    iso_travel_test("random walks, ${name}" walks 4 random_walks ENV ${env})
    iso_travel_test("exceptions, ${name}" travel_O2 3 exceptions ENV ${env})
    iso_travel_test("outside, ${name}" travel_O2 2 outside ENV ${env})
    iso_travel_test("modes, ${name}" travel_O2 2 modes ENV ${env})
    iso_travel_test("at once, ${name}" travel_O2 2 at_once ENV ${env})
endforeach()
foreach(path private/2 private/1 anon/1)
    string(REGEX MATCH "(.*)/(.*)" path ${path})
    iso_travel_test("deep once, ${CMAKE_MATCH_1}, nodes of ${CMAKE_MATCH_2}" travel_O2 2 deep_once
        ENV ISO_BACKING=${CMAKE_MATCH_1} ISO_NODE_SIZE=${CMAKE_MATCH_2} ISO_RETAIN=2M)
endforeach()
foreach(test depth random_walks)
    set(program travel_O2)
    if(test STREQUAL random_walks)
        set(program walks)
    endif()
    iso_travel_test("${test}, arrivals in a thread of the library's" ${program} 4 ${test}
        ENV ISO_BACKING=private ISO_PROGRESS_THREAD=y)
    iso_travel_test("${test}, in windows" ${program} 4 ${test}
        ENV ISO_BACKING=private ISO_NODE_SIZE=1 ISO_REGISTER=window ISO_PIN_LIMIT=8M)
    iso_travel_test("${test}, guarded by protection" ${program} 4 ${test}
        ENV ISO_BACKING=private ISO_TEST_NO_GUARD_INSTALL=1 ISO_GUARD_BUDGET=100)
endforeach()
iso_travel_test("exceptions, not optimised" travel_O0 3 exceptions)
iso_travel_test("exceptions, optimised at link time" travel_O3_lto 3 exceptions)
foreach(transport ucx ofi)
    if(TARGET isomalloc-${transport})
        iso_travel_test("depth, ${transport}" travel_O2 3 depth
            ENV ISO_BACKING=private ISO_NODE_SIZE=1 ISO_TRANSPORT=${transport} UCX_TLS=tcp,self ISO_OFI_PROVIDER=tcp FI_UNIVERSE_SIZE=8)
    endif()
endforeach()

foreach(backing shared private)
    foreach(node_size 1 2)
        iso_travel_test("overflow, ${backing}, nodes of ${node_size}" travel_O2 2 overflow
            ENV ISO_BACKING=${backing} ISO_NODE_SIZE=${node_size})
        set_tests_properties("ranks: travel: overflow, ${backing}, nodes of ${node_size}" PROPERTIES
            PASS_REGULAR_EXPRESSION "\\[1\\] isomalloc: FATAL SIGSEGV at .*overflow of the stack of 'traveller'")
    endforeach()
endforeach()

# Signed return addresses (PAC): refused as well, where the processor knows them. qemu's does; compilers make them on request.
set(iso_signs ${CMAKE_CROSSCOMPILING})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$" AND NOT iso_signs)
    file(STRINGS /proc/cpuinfo iso_signs REGEX "^Features.* paca" LIMIT_COUNT 1)
endif()
if(iso_signs)
    add_executable(travel_signed travel.cpp)
    target_compile_options(travel_signed PRIVATE -O2 -mbranch-protection=standard)
    target_link_libraries(travel_signed PRIVATE isomalloc-thread isomalloc iso_build_flags)
    iso_travel_test("signed return addresses" travel_signed 2 signed ENV ISO_BACKING=private)
    set_tests_properties("ranks: travel: signed return addresses" PROPERTIES
        PASS_REGULAR_EXPRESSION "a return address on its stack is signed \\(PAC\\)" FAIL_REGULAR_EXPRESSION "not so|exited with")
endif()

# Randomised addresses: refused, with the object named; a program that executes itself again is not.
function(iso_travel_script_test name)
    string(REGEX MATCH "^[a-z]+" test ${name})
    add_test(NAME "ranks: travel: ${name}" COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/travel.sh
        $<TARGET_FILE:iso_run> ${ISO_BIN_DIR}/travel_O2 ${test})
    set_tests_properties("ranks: travel: ${name}" PROPERTIES TIMEOUT 60 PROCESSORS 2 LABELS ranks
        ENVIRONMENT "${iso_test_environment};${ARGN}")
endfunction()
# iso_travel_death_test(<name> <ranks> <program> <test> <backing>/<node size>)
function(iso_travel_death_test name ranks program test path)
    string(REGEX MATCH "(.*)/(.*)" path ${path})
    set(name "ranks: travel: ${name}, ${CMAKE_MATCH_1}, nodes of ${CMAKE_MATCH_2}")
    math(EXPR survivors "${ranks} - 1")
    add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/survivors.sh ${survivors}
        $<TARGET_FILE:iso_run> -n ${ranks} --keep-going --no-aslr ${ISO_BIN_DIR}/${program} ${test})
    set_tests_properties(${name} PROPERTIES TIMEOUT 60 LABELS ranks PROCESSORS 2 ENVIRONMENT
        "${iso_test_environment};ISO_BACKING=${CMAKE_MATCH_1};ISO_NODE_SIZE=${CMAKE_MATCH_2};ISO_TIMEOUT=3")
endfunction()
foreach(path shared/3 private/3 private/1)
    iso_travel_death_test("a rank dies" 3 travel_O2 death ${path})
endforeach()
foreach(path shared/4 private/4 private/1 anon/1)
    iso_travel_death_test("a rank dies, random walks" 4 walks a_rank_dies ${path})
endforeach()
iso_travel_script_test(refused ISO_BACKING=shared)
iso_travel_script_test("refused, between nodes" ISO_BACKING=private ISO_NODE_SIZE=1)
iso_travel_script_test("outside, what is said" ISO_BACKING=shared)
iso_travel_script_test(restart ISO_BACKING=private)

# What may be done with threads while their heap lands, and who is told of them.
add_executable(lands lands.cpp)
target_compile_options(lands PRIVATE -fstack-protector-strong)
target_link_libraries(lands PRIVATE isomalloc-thread isomalloc iso_build_flags)
foreach(path shared/2 private/1)
    string(REGEX MATCH "(.*)/(.*)" path ${path})
    set(env ISO_BACKING=${CMAKE_MATCH_1} ISO_NODE_SIZE=${CMAKE_MATCH_2})
    set(name "${CMAKE_MATCH_1}, nodes of ${CMAKE_MATCH_2}")
    foreach(test early together told_once taken_in moved_early refused several)
        iso_travel_test("lands, ${test}, ${name}" lands 2 ${test} ENV ${env})
    endforeach()
    iso_travel_test("lands, light, ${name}" lands 3 light ENV ${env})
    iso_travel_test("lands, together, ${name}, arrivals in a thread of the library's" lands 2 together
        ENV ${env} ISO_PROGRESS_THREAD=y)
endforeach()

# In doubt: rank 1 stops with the commit, for longer than the source waits; decided either way, by a rank that goes on or by a death.
add_executable(doubts doubts.cpp)
target_link_libraries(doubts PRIVATE isomalloc-thread isomalloc iso_build_flags)
foreach(path private/1 anon/1)
    string(REGEX MATCH "(.*)/(.*)" path ${path})
    set(env ISO_BACKING=${CMAKE_MATCH_1} ISO_NODE_SIZE=${CMAKE_MATCH_2} ISO_TIMEOUT=0.7 ISO_TEST_AT=1:commit_came:1:stop)
    iso_travel_test("in doubt, goes, ${CMAKE_MATCH_1}" doubts 3 goes ENV ${env})
    foreach(way stays declared)
        add_test(NAME "ranks: travel: in doubt, ${way}, ${CMAKE_MATCH_1}" COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/survivors.sh 2
            $<TARGET_FILE:iso_run> -n 3 --keep-going --no-aslr ${ISO_BIN_DIR}/doubts ${way})
        set_tests_properties("ranks: travel: in doubt, ${way}, ${CMAKE_MATCH_1}" PROPERTIES TIMEOUT 60 LABELS ranks PROCESSORS 2
            ENVIRONMENT "${iso_test_environment};${env}")
    endforeach()
endforeach()

# The same by Converse's names.
add_executable(cth cth.cpp)
target_compile_options(cth PRIVATE -fstack-protector-strong)
target_link_libraries(cth PRIVATE isomalloc-converse isomalloc-thread isomalloc iso_build_flags)
foreach(path shared/3 private/1)
    string(REGEX MATCH "(.*)/(.*)" path ${path})
    set(env ISO_BACKING=${CMAKE_MATCH_1} ISO_NODE_SIZE=${CMAKE_MATCH_2})
    set(name "${CMAKE_MATCH_1}, nodes of ${CMAKE_MATCH_2}")
    iso_travel_test("Converse's threads, ${name}" cth 3 hops ENV ${env})
    iso_travel_test("Converse's threads, back at once, ${name}" cth 2 back ENV ${env})
    iso_travel_test("Converse's threads, a crowd, ${name}" cth 2 crowd ENV ${env})
    iso_travel_test("Converse's threads, none of its own, ${name}" cth 2 late ENV ${env})
    iso_travel_test("Converse's threads, protected pages, ${name}" cth 2 protects ENV ${env})
    iso_travel_test("Converse's threads, taken along, ${name}" cth 2 taken_along ENV ${env})
    foreach(test "" ", back at once" ", a crowd" ", none of its own" ", protected pages" ", taken along")
        set_tests_properties("ranks: travel: Converse's threads${test}, ${name}" PROPERTIES FAIL_REGULAR_EXPRESSION "ERROR")
    endforeach()
    foreach(test hops back crowd taken_along)
        iso_travel_test("Converse's threads, ${test}, ${name}, arrivals in a thread of the library's" cth 2 ${test}
            ENV ${env} ISO_PROGRESS_THREAD=y)
    endforeach()
endforeach()
