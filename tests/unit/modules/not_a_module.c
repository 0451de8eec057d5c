/* not_a_module.c - a shared object that exports neither table of a module. */
#include <isomalloc/isomalloc.h>

ISO_API extern const int iso_test_not_a_module;
const int iso_test_not_a_module = 1;
