# Headers, pkg-config file and CMake package. All paths in them are relative to the files
# themselves, so that an installed prefix can be moved.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/isomalloc DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

file(RELATIVE_PATH iso_pc_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" iso_pc_prefix ${iso_pc_prefix})
configure_file(cmake/isomalloc.pc.in isomalloc.pc @ONLY)
configure_file(cmake/isomalloc-converse.pc.in isomalloc-converse.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/isomalloc.pc ${PROJECT_BINARY_DIR}/isomalloc-converse.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET isomalloc-thread)
    configure_file(cmake/isomalloc-thread.pc.in isomalloc-thread.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/isomalloc-thread.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

set(iso_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/isomalloc)
configure_package_config_file(cmake/isomalloc-config.cmake.in isomalloc-config.cmake
    INSTALL_DESTINATION ${iso_package_dir})
write_basic_package_version_file(isomalloc-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/isomalloc-config.cmake
    ${PROJECT_BINARY_DIR}/isomalloc-config-version.cmake DESTINATION ${iso_package_dir})
install(EXPORT isomalloc-targets NAMESPACE isomalloc:: DESTINATION ${iso_package_dir})
