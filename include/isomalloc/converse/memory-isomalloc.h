/* memory-isomalloc.h - for programs that include Converse's header by its name. */
#include <isomalloc/converse.h>
