# The module ofi, where libfabric is. pkg-config knows; what it needs of it came with 1.17.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
    pkg_check_modules(iso_ofi QUIET IMPORTED_TARGET GLOBAL libfabric>=1.17)
endif()
if(NOT iso_ofi_FOUND)
    message(STATUS "transport ofi: off, pkg-config does not find libfabric 1.17 or later (Debian: libfabric-dev)")
    return()
endif()

message(STATUS "transport ofi: on, libfabric ${iso_ofi_VERSION}")
file(GLOB iso_ofi_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.c)
iso_add_module(ofi ${iso_ofi_sources} ${iso_common_sources} ${iso_network_sources} ${iso_window_sources})
target_link_libraries(isomalloc-ofi PRIVATE PkgConfig::iso_ofi)
# libfabric and what its providers load keep handlers and memory for the process: once opened, it stays.
target_link_options(isomalloc-ofi PRIVATE LINKER:-z,nodelete)
