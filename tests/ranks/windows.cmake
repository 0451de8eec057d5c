# The tests of several ranks with windows (ISO_REGISTER=window), each rank a node of its own. Over `checking`, which
# ends who puts where nothing is registered or registers too much; and over UCX, for UCX's regions. Over a device that
# pins: rdma.cmake.
# iso_window_test(<test> RANKS <n> LIMIT <bytes> [PIN <0|1>] [ENV <NAME=value>...] [TIMEOUT <seconds>])
function(iso_window_test test)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "RANKS;LIMIT;PIN;TIMEOUT;PROGRAM;NAME" "ENV")
    if(NOT arg_PROGRAM)
        set(arg_PROGRAM windows)
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120)
    endif()
    if(NOT arg_PIN)
        set(arg_PIN 0)
    endif()
    math(EXPR bytes "${arg_LIMIT} << 20")
    set(window ISO_NODE_SIZE=1 ISO_REGISTER=window ISO_PIN_LIMIT=${arg_LIMIT}M ISO_INLINE_MAX=0) # what rides needs no window
    list(FILTER arg_ENV INCLUDE REGEX "=")
    set(backing ISO_BACKING=private)
    if(arg_ENV MATCHES "ISO_BACKING")
        set(backing "")
    endif()
    if(NOT arg_NAME)
        set(arg_NAME "${test}")
    endif()
    iso_ranks_test(NAME "windows: ${arg_NAME}, ${arg_LIMIT}M" RANKS ${arg_RANKS}
        PROGRAM ${arg_PROGRAM} ARGS ${test} TIMEOUT ${arg_TIMEOUT} LABELS windows
        ENV ${window} ${backing} ${iso_checking} ISO_TEST_PIN_LIMIT=${bytes} ISO_TEST_PIN=${arg_PIN}
            ${arg_ENV})
endfunction()

# Heaps out of images, into windows that are registered or are not.
foreach(backing private anon)
    set(name "ranks: windows: images, ${backing}, 16M")
    add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/images.sh
        $<TARGET_FILE:iso_run> $<TARGET_FILE:images> 1)
    math(EXPR bytes "16 << 20")
    set_tests_properties(${name} PROPERTIES TIMEOUT 300 LABELS "ranks;windows" PROCESSORS 2 ENVIRONMENT
        "${iso_test_environment};ISO_BACKING=${backing};ISO_NODE_SIZE=1;ISO_REGISTER=window;ISO_PIN_LIMIT=16M;${iso_checking};ISO_TEST_PIN_LIMIT=${bytes};ISO_TEST_PIN=1")
endforeach()

iso_window_test(span RANKS 2 LIMIT 256 TIMEOUT 300)
foreach(limit 64 256)
    iso_window_test(fits RANKS 2 LIMIT ${limit} PIN 1)
endforeach()
foreach(limit 4 16 64) # windows of one slot, two and eight of them; of four slots
    foreach(test large straight_back ten_times)
        iso_window_test(${test} RANKS 2 LIMIT ${limit} PIN 1 TIMEOUT 300)
    endforeach()
    iso_window_test(prepared_in_part PROGRAM prepared RANKS 2 LIMIT ${limit} PIN 1 TIMEOUT 300)
    iso_window_test(crowd RANKS 6 LIMIT ${limit} PIN 1 TIMEOUT 300)
    iso_window_test(released RANKS 3 LIMIT ${limit} PIN 1 TIMEOUT 300 ENV ISO_RETAIN=4M ISO_GUARD=all)
endforeach()
iso_window_test(released NAME "released, anon" RANKS 3 LIMIT 8 PIN 1 TIMEOUT 300
    ENV ISO_RETAIN=4M ISO_BACKING=anon)
iso_window_test(straight_back NAME "straight back, nothing retained" RANKS 2 LIMIT 8 PIN 1
    TIMEOUT 300 ENV ISO_RETAIN=0)
iso_window_test(prepared PROGRAM prepared RANKS 3 LIMIT 64 PIN 1)
iso_window_test(forked RANKS 2 LIMIT 16 PIN 1)
iso_window_test(forked NAME "forked, anon" RANKS 2 LIMIT 16 PIN 1 ENV ISO_BACKING=anon)
foreach(test straight_back large) # the system turns out to allow half of the limit
    iso_window_test(${test} NAME "${test}, less than it seemed" RANKS 2 LIMIT 16 ENV ISO_TEST_MEMLOCK=8388608)
endforeach()
iso_window_test(crowd NAME "crowd, less than it seemed" RANKS 4 LIMIT 16 ENV ISO_TEST_MEMLOCK=8388608)
foreach(backing shared private) # some ranks are neighbours, whom another transport reaches
    iso_window_test(crowd NAME "crowd, ${backing}, nodes of 2" RANKS 4 LIMIT 16 PIN 1
        ENV ISO_BACKING=${backing} ISO_NODE_SIZE=2)
endforeach()
iso_window_test(borrower_stopped RANKS 3 LIMIT 16)
foreach(limit 4 16)
    add_test(NAME "ranks: windows: borrower_killed, ${limit}M"
        COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/survivors.sh 2
            $<TARGET_FILE:iso_run> -n 3 --keep-going $<TARGET_FILE:windows> borrower_killed)
    math(EXPR bytes "${limit} << 20")
    set_tests_properties("ranks: windows: borrower_killed, ${limit}M" PROPERTIES TIMEOUT 60
        LABELS "ranks;windows" PROCESSORS 2 ENVIRONMENT
        "${iso_test_environment};ISO_NODE_SIZE=1;ISO_BACKING=private;ISO_REGISTER=window;ISO_PIN_LIMIT=${limit}M;${iso_checking};ISO_TEST_PIN_LIMIT=${bytes}")
endforeach()

# What is true of migrations is true of them by windows.
iso_window_test(graph PROGRAM contents RANKS 4 LIMIT 16 PIN 1)
iso_window_test(pingpong PROGRAM contents RANKS 2 LIMIT 16 PIN 1 TIMEOUT 300 ENV ISO_RETAIN=16M)
iso_window_test(come_home PROGRAM contents RANKS 2 LIMIT 16 TIMEOUT 300 ENV ISO_SPACE_SIZE=256M)
iso_window_test(overlap PROGRAM contents RANKS 4 LIMIT 8 PIN 1 ENV ISO_RETAIN=1M)
iso_window_test(given_up PROGRAM protocol RANKS 4 LIMIT 16)
iso_window_test(crowd NAME threads PROGRAM threads RANKS 3 LIMIT 16 PIN 1 TIMEOUT 300
    ENV ISO_RETAIN=1M ISO_SPACE_SIZE=256M)
iso_window_test(round_trip NAME "object: round_trip" PROGRAM object RANKS 3 LIMIT 16 PIN 1)
iso_window_test(8 NAME "every kind of object" PROGRAM kinds RANKS 2 LIMIT 16 PIN 1)
foreach(guard first all)
    iso_window_test(change_hands NAME "guards, ${guard}" PROGRAM guards RANKS 2 LIMIT 8 PIN 1
        ENV ISO_GUARD=${guard} ISO_SPACE_SIZE=128M ISO_LOG_LEVEL=warn)
endforeach()
foreach(limit 8 64) # of several slots are the windows that a device pins with what others have protected
    foreach(test round_trip ends_elsewhere neighbour)
        iso_window_test(${test} NAME "protect: ${test}" PROGRAM protect RANKS 2 LIMIT ${limit} PIN 1)
    endforeach()
endforeach()
foreach(end end stop)
    iso_stage_test(${end} private 1 1 ", windows" ISO_REGISTER=window ISO_PIN_LIMIT=4M ${iso_checking}
        ISO_TEST_PIN_LIMIT=4194304)
endforeach()

add_test(NAME "ranks: windows: policies" COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/policies.sh
    $<TARGET_FILE:iso_run> $<TARGET_FILE:protocol>)
set_tests_properties("ranks: windows: policies" PROPERTIES TIMEOUT 120 LABELS "ranks;windows" PROCESSORS 2
    ENVIRONMENT "${iso_test_environment};${iso_checking}")

set(iso_window_transports "")
if(TARGET isomalloc-ucx AND NOT ISO_SANITIZE MATCHES thread)
    list(APPEND iso_window_transports ucx/tcp,self)
endif()
if(TARGET isomalloc-ofi AND NOT ISO_SANITIZE MATCHES thread)
    list(APPEND iso_window_transports ofi/tcp)
    if(ISO_SOAK_TESTS)
        list(APPEND iso_window_transports ofi/shm)
    endif()
endif()
foreach(pair IN LISTS iso_window_transports)
    string(REGEX MATCH "(.*)/(.*)" pair ${pair})
    set(transport ${CMAKE_MATCH_1})
    set(way ${CMAKE_MATCH_2})
    string(REPLACE ",self" "" name ${way})
    set(network ISO_TRANSPORT=${transport} UCX_TLS=${way} ISO_OFI_PROVIDER=${way} ISO_NODE_SIZE=1
        ISO_BACKING=private ISO_REGISTER=window ISO_INLINE_MAX=0)
    foreach(row fits/2/64M prepared/3/64M large/2/16M straight_back/2/16M ten_times/2/16M crowd/4/16M
            released/3/16M forked/2/16M)
        string(REGEX MATCH "(.*)/(.*)/(.*)" row ${row})
        set(program windows)
        if(CMAKE_MATCH_1 STREQUAL prepared)
            set(program prepared)
        endif()
        iso_ranks_test(NAME "windows: ${CMAKE_MATCH_1}, ${transport} ${name}" RANKS ${CMAKE_MATCH_2}
            PROGRAM ${program} ARGS ${CMAKE_MATCH_1} TIMEOUT 300 LABELS "windows;${transport}"
            ENV ${network} ISO_PIN_LIMIT=${CMAKE_MATCH_3})
    endforeach()
endforeach()
