# The tests of several ranks over libfabric, by the providers that every machine has.
foreach(provider tcp shm)
    iso_network_tests(ofi ", ofi ${provider}" ISO_TRANSPORT=ofi ISO_OFI_PROVIDER=${provider})
endforeach()
