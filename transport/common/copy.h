/*
 * copy.h - memcpy to memory of this host that another process used last and will read next.
 *
 * Compiled into every module that wants it: a module needs nothing outside itself.
 */
#ifndef TRANSPORT_COMMON_COPY_H
#define TRANSPORT_COMMON_COPY_H

#include <stdbool.h>
#include <stddef.h>

/* Ordered before what is stored after it, as memcpy is. */
void copy_to_peer(void *to, const void *from, size_t len);
/* The same in one of its ways, for tests: lines stored whole (AVX-512), or not. false: not on this processor. */
bool copy_to_peer_by(bool lines, void *to, const void *from, size_t len);

#endif
