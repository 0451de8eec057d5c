/*
 * fuzz_transport.h - a transport whose peers are the fuzzer: what it sends is handed to the harness,
 * what the harness pushes arrives. A module, as any third party's; the harness finds fuzz_push in it.
 */
#ifndef ISO_TESTS_FUZZ_TRANSPORT_H
#define ISO_TESTS_FUZZ_TRANSPORT_H

#include <isomalloc/transport.h>

/* A message from `source`, delivered by the next progress. Set by dlsym. */
typedef void (*fuzz_push_fn)(uint32_t source, const void *data, size_t len);
/* Called with every message that the library sends. */
typedef void (*fuzz_sent_fn)(uint32_t dest, const void *data, size_t len);
typedef void (*fuzz_listen_fn)(fuzz_sent_fn sent);
/* May something still land at the rank that was put into the slot of this heap? Only a flush ends that. */
typedef bool (*fuzz_unflushed_fn)(uint32_t rank, uint64_t heap);

#endif
