# The tests of several ranks over a network transport, each rank a node of its own. What they are and mean is in
# CMakeLists.txt; what is left out here has nothing to do with what is between nodes.
# iso_network_tests(<label> <over> <NAME=value>...): <over> names the transport in the tests' names.
set(iso_network_stages end stop) # what happens at every stage of a migration: these tests are the longest
function(iso_network_tests label over)
    set(network ${ARGN} ISO_NODE_SIZE=1)
    set(private ${network} ISO_BACKING=private)

    foreach(backing private anon)
        iso_ranks_test(NAME "graph, ${backing}${over}" RANKS 4 PROGRAM contents ARGS graph LABELS ${label}
            ENV ${network} ISO_BACKING=${backing})
    endforeach()
    iso_ranks_test(NAME "given up${over}" RANKS 4 PROGRAM protocol ARGS given_up LABELS ${label}
        ENV ${private})
    foreach(retain 0 512K 256M)
        iso_ranks_test(NAME "pingpong, retain ${retain}${over}" RANKS 2 PROGRAM contents
            ARGS pingpong TIMEOUT 300 LABELS ${label} ENV ${private} ISO_RETAIN=${retain})
    endforeach()
    iso_ranks_test(NAME "slots come home${over}" RANKS 2 PROGRAM contents ARGS come_home TIMEOUT 180
        LABELS ${label} ENV ${private} ISO_SPACE_SIZE=256M)
    iso_ranks_test(NAME "overlap${over}" RANKS 4 PROGRAM contents ARGS overlap TIMEOUT 120 LABELS ${label}
        ENV ${private} ISO_RETAIN=1M)
    iso_ranks_test(NAME "shipped within the bound${over}" RANKS 2 PROGRAM contents ARGS shipped
        TIMEOUT 180 LABELS ${label} ENV ${private})
    foreach(test misuse headers stopped cancel)
        iso_ranks_test(NAME "${test}${over}" RANKS 2 PROGRAM protocol ARGS ${test} LABELS ${label}
            ENV ${private} ISO_TIMEOUT=2)
    endforeach()
    foreach(most 0 4K)
        iso_ranks_test(NAME "rides, ${most}${over}" RANKS 2 PROGRAM protocol ARGS rides LABELS ${label}
            ENV ${private} ISO_INLINE_MAX=${most})
    endforeach()
    foreach(test parts full_ring)
        iso_ranks_test(NAME "${test}${over}" RANKS 2 PROGRAM slots ARGS ${test} LABELS ${label}
            ENV ${private} ISO_POISON=n)
    endforeach()
    iso_ranks_test(NAME "refused${over}" RANKS 3 PROGRAM protocol ARGS refused LABELS ${label}
        ENV ${private})
    iso_ranks_test(NAME "idle${over}" RANKS 2 PROGRAM protocol ARGS idle LABELS ${label} ENV ${network})
    iso_ranks_test(NAME "borrow${over}" RANKS 4 PROGRAM slots ARGS borrow LABELS ${label}
        ENV ${network} ISO_SPACE_SIZE=128M)
    iso_ranks_test(NAME "threads${over}" RANKS 3 PROGRAM threads ARGS crowd TIMEOUT 150 LABELS ${label}
        ENV ${private} ISO_RETAIN=1M ISO_SPACE_SIZE=256M)
    foreach(test travel inside)
        iso_ranks_test(NAME "threads of a shared heap: ${test}${over}" RANKS 3 PROGRAM shared_heaps
            ARGS ${test} LABELS ${label} ENV ${private})
    endforeach()
    foreach(test again base_taken two_jobs one_fails forked)
        iso_ranks_test(NAME "${test}${over}" RANKS 3 PROGRAM lifecycle ARGS ${test} TIMEOUT 120
            LABELS ${label} ENV ${private})
    endforeach()
    foreach(test progress_thread barrier_waits)
        iso_ranks_test(NAME "threads of the library: ${test}${over}" RANKS 2 PROGRAM service
            ARGS ${test} LABELS ${label} ENV ${private})
    endforeach()
    iso_ranks_test(NAME "increments by what was written${over}" RANKS 2 PROGRAM tracked LABELS ${label}
        ENV ${network} ISO_BACKING=anon ISO_TRACK_WRITES=y ISO_LOG_LEVEL=info)
    iso_ranks_test(NAME "every kind of object${over}" RANKS 2 PROGRAM kinds ARGS ${iso_large_mib} TIMEOUT 300
        LABELS ${label} ENV ${private})
    foreach(test many_heaps many_migrations)
        iso_ranks_test(NAME "${test}${over}" RANKS 2 PROGRAM scale ARGS ${test} TIMEOUT 180
            LABELS ${label} ENV ${private} ISO_TIMEOUT=60 ${iso_flat_memory})
    endforeach()
    foreach(test change_hands to_and_fro)
        iso_ranks_test(NAME "guards: ${test}${over}" RANKS 2 PROGRAM guards ARGS ${test} LABELS ${label}
            ENV ${private} ISO_GUARD=all ISO_SPACE_SIZE=128M)
    endforeach()
    foreach(test round_trip ends_elsewhere stays saved)
        iso_ranks_test(NAME "protect: ${test}${over}" RANKS 2 PROGRAM protect ARGS ${test} LABELS ${label} ENV ${private})
    endforeach()

    iso_ranks_test(NAME "object: round_trip${over}" RANKS 3 PROGRAM object ARGS round_trip LABELS ${label} ENV ${private})
    foreach(test stays late alone)
        iso_ranks_test(NAME "object: ${test}${over}" RANKS 2 PROGRAM object ARGS ${test} LABELS ${label} ENV ${private})
    endforeach()

    iso_ranks_test(NAME "converse${over}" RANKS 3 PROGRAM converse LABELS ${label} ENV ${private})
    iso_ranks_test(NAME "huge pages: landing${over}" RANKS 2 PROGRAM huge ARGS landing LABELS ${label}
        ENV ${private} ISO_HUGE_PAGES=auto)
    string(MAKE_C_IDENTIFIER "pup${over}" folder)
    set(folder ${CMAKE_CURRENT_BINARY_DIR}/${folder})
    file(MAKE_DIRECTORY ${folder})
    iso_ranks_test(NAME "pup${over}" RANKS 3 PROGRAM pup ARGS ${folder} LABELS ${label} ENV ${private})

    foreach(test target_dies source_dies)
        iso_death_test(${test} private 1 ${over} ${network})
    endforeach()
    if("end" IN_LIST iso_network_stages)
        iso_stage_test(end private 1 ${iso_stage_rounds} ${over} ${network})
    endif()
    if("stop" IN_LIST iso_network_stages)
        iso_stage_test(stop private 1 1 ${over} ${network})
    endif()
    if(ISO_SOAK_TESTS)
        iso_stage_test(end private 1 1 ", object${over}" ${network})
        iso_ranks_test(NAME "threads with objects${over}" RANKS 3 PROGRAM threads ARGS objects TIMEOUT 150
            LABELS ${label} ENV ${private} ISO_RETAIN=1M ISO_SPACE_SIZE=384M)
        set(name "ranks: images, private, nodes of 1${over}")
        add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/images.sh $<TARGET_FILE:iso_run> $<TARGET_FILE:images> 2)
        set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS "ranks;${label}" PROCESSORS 2
            ENVIRONMENT "${iso_test_environment};${private}")
        iso_ranks_test(NAME "object: peak${over}" RANKS 2 PROGRAM object ARGS peak ${iso_large_mib} TIMEOUT 300
            LABELS ${label} ENV ${private})
    endif()
endfunction()
