/*
 * atomic.h - atomic types in structures whose headers C++ tests read, too: C++ knows their layout
 * and leaves the accesses to C.
 */
#ifndef ISO_CORE_ATOMIC_H
#define ISO_CORE_ATOMIC_H

#ifdef __cplusplus
#define ISO_ATOMIC(type) type
#ifdef __clang__ /* and some end in an array of any length */
#pragma clang diagnostic ignored "-Wc99-extensions"
#endif
#else
#include <stdatomic.h>
#define ISO_ATOMIC(type) _Atomic(type)
#endif

#endif
