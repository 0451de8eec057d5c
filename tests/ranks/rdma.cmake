# The tests over real RDMA verbs: ci/rdma runs them, in a guest with Soft-RoCE, where everything is slow. They
# are registered for ctest's configuration `rdma` only, because without a device they cannot run. Whatever
# a job's puts go by is in its output, and a way that is no RDMA lane fails the test. What is registered is pinned,
# which takes long there: the whole iso space, so it is small, and UCX's own buffers, so they are few.
set(iso_rdma_environment ${iso_test_environment} ISO_TRANSPORT=ucx ISO_NODE_SIZE=1 ISO_SPACE_SIZE=32M
    ISO_BACKING=private ISO_TEST_SCALE=16 ISO_TIMEOUT=60 ISO_LOG_LEVEL=info
    UCX_RC_VERBS_RX_QUEUE_LEN=256 UCX_UD_VERBS_RX_QUEUE_LEN=256)

# iso_rdma_command_test(<name> <timeout> ENV <NAME=value>... COMMAND <command>...), ENV before anything else set
function(iso_rdma_command_test name timeout)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "ENV;COMMAND")
    add_test(NAME "rdma: ${name}" CONFIGURATIONS rdma COMMAND ${arg_COMMAND})
    set_tests_properties("rdma: ${name}" PROPERTIES TIMEOUT ${timeout} LABELS rdma PROCESSORS 2
        ENVIRONMENT "${iso_rdma_environment};UCX_TLS=rc_v,self;${arg_ENV}")
    if(NOT arg_ENV MATCHES "UCX_TLS")
        set_tests_properties("rdma: ${name}" PROPERTIES FAIL_REGULAR_EXPRESSION "messages that its CPU copies")
    endif()
endfunction()

# iso_rdma_test(<program> <test> <ranks> [<NAME=value>...])
function(iso_rdma_test program test ranks)
    string(JOIN " " with ${ARGN})
    string(REPLACE "ISO_" "" with "${with}")
    if(with)
        set(with ", ${with}")
    endif()
    iso_rdma_command_test("${program} ${test}${with}" 300 ENV ${ARGN}
        COMMAND iso_run -n ${ranks} $<TARGET_FILE:${program}> ${test})
endfunction()

foreach(backing private anon)
    iso_rdma_test(contents graph 4 ISO_BACKING=${backing} ISO_SPACE_SIZE=96M)
endforeach()
iso_rdma_test(contents graph 2 UCX_TLS=ud_v,self ISO_SPACE_SIZE=96M) # there puts are messages
iso_rdma_test(contents pingpong 2 ISO_RETAIN=512K ISO_TEST_SCALE=25)
iso_rdma_test(contents come_home 2 ISO_TEST_SCALE=50)
iso_rdma_test(contents overlap 4 ISO_RETAIN=1M ISO_SPACE_SIZE=96M)
iso_rdma_test(contents shipped 2 ISO_SPACE_SIZE=96M)
iso_rdma_test(scale many_migrations 2 ISO_TEST_SCALE=100) # 1,000
foreach(test one_sided headers stopped cancel)
    iso_rdma_test(protocol ${test} 2 ISO_TIMEOUT=5)
endforeach()
iso_rdma_test(protocol refused 3)
iso_rdma_test(protocol given_up 4)
iso_rdma_test(slots borrow 4 ISO_SPACE_SIZE=64M)
iso_rdma_test(threads crowd 3 ISO_RETAIN=1M ISO_SPACE_SIZE=96M)
iso_rdma_test(shared_heaps travel 3)
foreach(test again forked)
    iso_rdma_test(lifecycle ${test} 3)
endforeach()
foreach(test change_hands to_and_fro)
    iso_rdma_test(guards ${test} 2 ISO_GUARD=all ISO_SPACE_SIZE=64M)
endforeach()
foreach(test round_trip ends_elsewhere)
    iso_rdma_test(protect ${test} 2 ISO_SPACE_SIZE=96M)
endforeach()
foreach(test round_trip neighbour)
    iso_rdma_test(protect ${test} 2 ISO_SPACE_SIZE=96M ISO_REGISTER=window ISO_PIN_LIMIT=8M)
endforeach()

# Objects with heaps and blocks: as space, and in windows, where what a carrier brings, and its members take back, is in
# one that is registered, or is not. And images, whose heaps come into what is pinned.
set(objects ISO_SPACE_SIZE=96M)
foreach(test stays alone)
    iso_rdma_test(object ${test} 2 ${objects})
endforeach()
foreach(windows "" "ISO_REGISTER=window;ISO_PIN_LIMIT=8M")
    iso_rdma_test(object round_trip 3 ${objects} ${windows})
    iso_rdma_test(kinds 4 2 ${objects} ${windows})
endforeach()
iso_rdma_command_test("images" 300 ENV ISO_SPACE_SIZE=128M
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/images.sh $<TARGET_FILE:iso_run> $<TARGET_FILE:images> 0)

# What is registered: it is pinned, and stays what the device writes to.
iso_rdma_test(pinned space 2 ISO_REGISTER=space)
add_library(registrations MODULE registrations.c)
set_target_properties(registrations PROPERTIES C_VISIBILITY_PRESET default)
target_link_libraries(registrations PRIVATE ${CMAKE_DL_LIBS})
foreach(register space window)
    iso_rdma_command_test("pinned registered_once, ${register}" 200 ENV ISO_REGISTER=${register}
        COMMAND iso_run -n 2 env LD_PRELOAD=$<TARGET_FILE:registrations> $<TARGET_FILE:pinned> registered_once)
endforeach()
foreach(backing private anon)
    iso_rdma_test(pinned churn 3 ISO_BACKING=${backing} ISO_RETAIN=1M ISO_SPACE_SIZE=96M)
    iso_rdma_test(pinned forked 2 ISO_BACKING=${backing} ISO_SPACE_SIZE=64M)
endforeach()
iso_rdma_test(pinned churn 3 ISO_GUARD=all ISO_RETAIN=0 ISO_SPACE_SIZE=96M)
foreach(backing private anon)
    iso_rdma_test(pinned churn 3 ISO_REGISTER=window ISO_PIN_LIMIT=8M ISO_RETAIN=1M ISO_BACKING=${backing}
        ISO_SPACE_SIZE=96M)
endforeach()
iso_rdma_test(windows ten_times 2 ISO_REGISTER=window ISO_PIN_LIMIT=4M ISO_SPACE_SIZE=1G)
foreach(test straight_back large)
    iso_rdma_test(windows ${test} 2 ISO_REGISTER=window ISO_PIN_LIMIT=4M ISO_SPACE_SIZE=1G)
endforeach()
iso_rdma_command_test("lane and limit" 200
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/rdma.sh $<TARGET_FILE:iso_run> $<TARGET_FILE:protocol> $<TARGET_FILE:windows>)

# Deaths: of the target, of the source, and of each at every stage.
foreach(test target_dies target_dies_in_put source_dies)
    iso_rdma_command_test("deaths ${test}" 200 ENV ISO_SPACE_SIZE=96M ISO_TIMEOUT=20
        COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/survivors.sh 2
            $<TARGET_FILE:iso_run> -n 3 --keep-going $<TARGET_FILE:deaths> ${test})
endforeach()
iso_rdma_command_test("stages" 900 ENV ISO_TIMEOUT=2
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/stages.sh $<TARGET_FILE:iso_run> $<TARGET_FILE:stages> 1 end fresh)

# What one process can test of it: the transport alone, and what Linux 6.1 does not have.
iso_rdma_command_test("the transport alone" 600 ENV ISO_TEST_UCX_TLS=rc_v,self UCX_TLS=rc_v,self
    COMMAND ${CMAKE_SOURCE_DIR}/tests/unit/each.sh $<TARGET_FILE:unit_tests> [ucx],[network],[.rdma])
iso_rdma_command_test("an older kernel" 200 ENV ISO_LOG_LEVEL=warn COMMAND unit_tests [guard],[os])

# Debian's kernel has Yama, which not every kernel has, and in the guest its setting is nobody else's.
iso_rdma_command_test("anonymous memory where Yama forbids" 300 ENV ISO_LOG_LEVEL=warn
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/yama.sh $<TARGET_FILE:iso_run> $<TARGET_FILE:protocol>)

# The same device by libfabric: what it asks for of registration (FI_MR_LOCAL, VIRT_ADDR, ALLOCATED, PROV_KEY) no
# software provider does.
if(TARGET isomalloc-ofi)
    set(verbs ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=verbs FI_UNIVERSE_SIZE=8 ISO_SPACE_SIZE=96M)
    iso_rdma_test(contents graph 2 ${verbs})
    iso_rdma_test(protocol one_sided 2 ${verbs})
    iso_rdma_test(object round_trip 3 ${verbs})
    # without the cache of registrations, which unpins nothing
    iso_rdma_test(windows ten_times 2 ${verbs} ISO_REGISTER=window ISO_PIN_LIMIT=4M ISO_SPACE_SIZE=1G
        FI_MR_CACHE_MAX_COUNT=0)
    foreach(test target_dies source_dies)
        iso_rdma_command_test("deaths ${test}, ofi" 200 ENV ${verbs} ISO_TIMEOUT=20
            COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/survivors.sh 2
                $<TARGET_FILE:iso_run> -n 3 --keep-going $<TARGET_FILE:deaths> ${test})
    endforeach()
endif()
