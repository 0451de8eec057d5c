// Tests of an iso space that is registered in windows (ISO_REGISTER=window): what may be registered, and heaps whose
// contents tell whether all of them has come.
#ifndef ISO_TESTS_WINDOWS_HPP
#define ISO_TESTS_WINDOWS_HPP

#include "marked.hpp"

inline uint64_t limit()
{
    iso_params_t params;
    EXPECT_STATUS(ISO_OK, iso_params_init(&params));
    EXPECT(params.pin_limit > 0);
    return params.pin_limit;
}

inline void check_limit(const Job &job)
{
    const iso_stats_t stats = job.stats();
    EXPECT(stats.registered_bytes <= limit());
    EXPECT(stats.registered_high <= limit());
}

// A heap of large blocks, each filled with words that say where they are and how often they were on their way.
struct Load {
    uint64_t words, hops;
    uint64_t *word;
};

inline iso_heap_t *loaded(const Job &job, size_t bytes)
{
    iso_heap_t *heap = job.heap();
    auto *load = static_cast<Load *>(iso_malloc(heap, sizeof(Load)));
    EXPECT(load != nullptr);
    *load = {bytes / sizeof(uint64_t), 0, static_cast<uint64_t *>(iso_malloc(heap, bytes))};
    EXPECT(load->word != nullptr);
    for (uint64_t i = 0; i < load->words; i++)
        load->word[i] = i * 2654435761u;
    iso_heap_set_root(heap, load);
    return heap;
}

// Some of the words change with each hop, so that what is there from an earlier visit is found out.
inline void change(iso_heap_t *heap)
{
    auto *load = static_cast<Load *>(iso_heap_root(heap));
    load->hops++;
    for (uint64_t i = 0; i < load->words; i += 256)
        load->word[i] = i * 2654435761u + load->hops;
}

inline void check(const iso_heap_t *heap)
{
    const auto *load = static_cast<Load *>(iso_heap_root(heap));
    for (uint64_t i = 0; i < load->words; i++)
        EXPECT(load->word[i] == i * 2654435761u + (i % 256 == 0 ? load->hops : 0));
}

#endif
