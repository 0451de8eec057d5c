# The tests of several ranks over UCX. "all": what UCX chooses where nothing is forced.
set(iso_ucx_tls tcp,self posix,cma,self)
if(ISO_SOAK_TESTS)
    list(APPEND iso_ucx_tls sysv,cma,self all)
endif()
foreach(tls IN LISTS iso_ucx_tls)
    iso_network_tests(ucx ", ucx ${tls}" ISO_TRANSPORT=ucx UCX_TLS=${tls})
endforeach()

# Two hosts, nearly, and the cable between them is pulled.
add_test(NAME "ranks: the cable is pulled, ucx tcp" COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cable.sh
    $<TARGET_FILE:iso_run> $<TARGET_FILE:cable>)
set_tests_properties("ranks: the cable is pulled, ucx tcp" PROPERTIES TIMEOUT 240 PROCESSORS 2
    LABELS "ranks;ucx" SKIP_RETURN_CODE 77 ENVIRONMENT "${iso_test_environment}")
