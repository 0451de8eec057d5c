# How every target of the project is compiled, and how modules and programs are made.

# The interface library that each target of ours links: warnings, _GNU_SOURCE, sanitizers.
add_library(iso_build_flags INTERFACE)
target_compile_options(iso_build_flags INTERFACE
    -Wall -Wextra -Wpedantic
    $<$<COMPILE_LANGUAGE:C>:-Wshadow -Wstrict-prototypes -Wmissing-prototypes>
    $<$<BOOL:${ISO_WERROR}>:-Werror>
    $<$<BOOL:${ISO_ASSERTS}>:-UNDEBUG>)
# C++ compilers define it themselves.
target_compile_definitions(iso_build_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:_GNU_SOURCE>)
if(ISO_SANITIZE)
    set(iso_sanitizer_flags -fsanitize=${ISO_SANITIZE} -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    if(ISO_SANITIZE MATCHES thread AND CMAKE_C_COMPILER_ID STREQUAL GNU)
        list(APPEND iso_sanitizer_flags -Wno-tsan) # fences order, and it knows only the atomics
    endif()
    target_compile_options(iso_build_flags INTERFACE ${iso_sanitizer_flags})
    target_link_options(iso_build_flags INTERFACE ${iso_sanitizer_flags})
endif()

# Of what is on the stack of a thread that waits: its return addresses must mean the same elsewhere (core/thread/signed.h),
# whatever the compiler is set to.
add_library(iso_thread_flags INTERFACE)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    target_compile_options(iso_thread_flags INTERFACE -mbranch-protection=bti)
endif()

# iso_add_module(<name> <sources>...): lib/isomalloc/libisomalloc-<name>.so, opened at run time. It
# sees the public headers, its own folder and transport/common, and links nothing of the library.
function(iso_add_module name)
    add_library(isomalloc-${name} MODULE ${ARGN})
    target_include_directories(isomalloc-${name} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR})
    target_link_libraries(isomalloc-${name} PRIVATE iso_build_flags Threads::Threads)
    if(NOT ISO_SANITIZE) # with some compilers the sanitizer's symbols come from the program
        target_link_options(isomalloc-${name} PRIVATE LINKER:-z,defs)
    endif()
    set_target_properties(isomalloc-${name} PROPERTIES
        LIBRARY_OUTPUT_DIRECTORY ${ISO_LIB_DIR}/isomalloc
        SKIP_BUILD_RPATH ON
        INSTALL_RPATH "")
    install(TARGETS isomalloc-${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/isomalloc)
endfunction()

# iso_add_program(<name> <sources>...): an installed program, with its man page man/<name>.1.
function(iso_add_program name)
    add_executable(${name} ${ARGN})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(${name} PRIVATE iso_build_flags)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    _iso_install_man_page(${name})
endfunction()

# iso_add_script(<name> [<file>]): the same for a shell script; the build tree has a copy beside the programs.
function(iso_add_script name)
    list(GET ARGV -1 file)
    configure_file(${file} ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/${name} COPYONLY)
    install(PROGRAMS ${file} DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME ${name})
    _iso_install_man_page(${name})
endfunction()

function(_iso_install_man_page name)
    if(EXISTS ${PROJECT_SOURCE_DIR}/man/${name}.1)
        install(FILES ${PROJECT_SOURCE_DIR}/man/${name}.1
            DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    endif()
endfunction()
