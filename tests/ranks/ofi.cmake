# The tests of several ranks over libfabric, by the providers that every machine has. Both run all of them, but what takes
# long, and shm under a sanitizer, only in ci/soak.
# FI_UNIVERSE_SIZE: else tcp;ofi_rxm has a ring of completions for 256 peers, 3 MiB that are touched for the first time
# one after the other, which looks like memory that is lost.
set(iso_elsewhere ${iso_stage_rounds} ${iso_network_stages})
set(providers tcp shm)
if(NOT ISO_SOAK_TESTS)
    set(iso_stage_rounds 1)
    set(iso_network_stages end)
    if(ISO_SANITIZE)
        set(iso_network_stages)
        set(providers tcp)
    endif()
endif()
foreach(provider IN LISTS providers)
    iso_network_tests(ofi ", ofi ${provider}" ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=${provider}
        FI_UNIVERSE_SIZE=8)
endforeach()
list(POP_FRONT iso_elsewhere iso_stage_rounds)
set(iso_network_stages ${iso_elsewhere})
set(shm ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=shm ISO_NODE_SIZE=1)
iso_ranks_test(NAME "one-sided, ofi shm" RANKS 2 PROGRAM protocol ARGS one_sided LABELS ofi
    ENV ${shm} ISO_BACKING=private)
if(NOT "shm" IN_LIST providers) # what ends a rank, and one of the others
    iso_ranks_test(NAME "graph, private, ofi shm" RANKS 4 PROGRAM contents ARGS graph LABELS ofi
        ENV ${shm} ISO_BACKING=private)
    foreach(test target_dies source_dies)
        iso_death_test(${test} private 1 ", ofi shm" ${shm})
    endforeach()
endif()
