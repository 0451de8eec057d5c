/* tests.c - see tests.h. The defaults of a run take about a second on a usual machine. */
#include "tests.h"

#define MIB ((size_t)1 << 20)

const test_t tests[] = {
    {"put_lat", 2, "snw", 8, 0, 512 * MIB, 100000, test_put_lat,
     "puts to and fro through the transport alone, half of the round trip"},
    {"put_bw", 2, "snwO", MIB, 0, 8192 * MIB, 100000, test_put_bw,
     "puts through the transport alone, one way"},
    {"migrate_lat", 2, "snwD", 16, 0, 4096 * MIB, 10000, test_migrate_lat,
     "a heap goes there and back, half of the time; its steps apart"},
    {"migrate_bw", 2, "snwOD", 64 * MIB, 0, 4096 * MIB, 10000, test_migrate_bw,
     "heaps in flight (-O) there and back"},
    {"migrate_frag", 2, "snwD", 64 * MIB, 64, 2048 * MIB, 1000, test_migrate_frag,
     "half of the blocks freed at random: bytes live, bytes shipped"},
    {"migrate_cold", 2, "snD", 16 * MIB, 0, 512 * MIB, 1000, test_migrate_cold,
     "first arrivals, each of a new heap, and the first look at its pages"},
    {"migrate_memcpy", 2, "snwD", 64 * MIB, 0, 2048 * MIB, 1000, test_migrate_memcpy,
     "migrations in turns with memcpy of as much, and the ratio"},
    {"register", 1, "snw", 64 * MIB, 0, 2048 * MIB, 1000, test_register,
     "registration of -s bytes of memory, and the bytes that it pins"},
    {"attach", 2, "snwD", 64 * MIB, 64, 4096 * MIB, 1000, test_attach,
     "COMMIT to runnable, of heaps of 1, 10, 100, ... blocks, up to -s bytes"},
    {"alloc", 1, "snT", 64, 0, 65536 * MIB, 10000000, test_alloc,
     "iso_free and iso_malloc of -s bytes, -n pairs in each of -T threads"},
    {"handover", 2, "snw", 1024 * MIB, 0, 16384 * MIB, 1000, test_handover,
     "a large heap in turns with one of 1 MiB, and the ratio"},
    {"visit", 2, "sn", 64 * MIB, 0, 2048 * MIB, 1000, test_visit,
     "looking at a heap's pages, on the first visit and later"},
    {"progress", 1, "n", 0, 0, 0, 100, test_progress, "iso_progress that finds nothing to do"},
    {"idle", 1, "", 0, 0, 0, 1, test_idle, "processor time of ranks that wait for a second"},
    {"heaps", 1, "sn", 100, 0, MIB, 10000, test_heaps,
     "making -n heaps with a block of -s bytes, and the process's mappings"},
    {"checkpoint", 1, "snD", 256 * MIB, 0, 1024 * MIB, 100, test_checkpoint,
     "a heap saved to a file in TMPDIR (/var/tmp), in turns with dd of as much, and the ratio"},
    {"increment", 1, "sn", 256 * MIB, 0, 1024 * MIB, 30, test_increment,
     "a page of a hundred written, then an increment saved, by turns; and the ratio of bytes"},
    {"windows", 2, "snw", 65536 * MIB, 0, 65536 * MIB, 100, test_windows,
     "heaps that span -s bytes of addresses, and what is registered (ISO_REGISTER=window)"},
#ifdef ISO_PERFTEST_THREADS
    {"thread_switch", 1, "nw", 0, 0, 0, 10000000, test_thread_switch,
     "from a stack to another, beside swapcontext and Boost.Context; and by resume and yield"},
    {"thread_migrate", 2, "snw", MIB, 0, 65536 * MIB, 10000, test_thread_migrate,
     "a thread with a stack of -s bytes there and back, half of the time; and the smallest heap"},
#endif
};
const size_t tests_count = sizeof tests / sizeof *tests;
