# The tests of several ranks over libfabric, by the providers that every machine has.
# FI_UNIVERSE_SIZE: else tcp;ofi_rxm has a ring of completions for 256 peers, 3 MiB that are touched for the first time
# one after the other, which looks like memory that is lost.
set(iso_rounds_elsewhere ${iso_stage_rounds})
if(NOT ISO_SOAK_TESTS)
    set(iso_stage_rounds 1) # ci/soak has many
endif()
foreach(provider tcp shm)
    iso_network_tests(ofi ", ofi ${provider}" ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=${provider}
        FI_UNIVERSE_SIZE=8)
endforeach()
set(iso_stage_rounds ${iso_rounds_elsewhere})
iso_ranks_test(NAME "one-sided, ofi shm" RANKS 2 PROGRAM protocol ARGS one_sided LABELS ofi
    ENV ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=shm ISO_NODE_SIZE=1 ISO_BACKING=private)
