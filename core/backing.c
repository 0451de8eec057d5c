/* backing.c - see backing.h. */
#include "core/backing.h"
#include "core/os.h"
#include <string.h>
#include <unistd.h>

#define SAMPLE_PAGES 64
#define SAMPLES 3 /* the least disturbed one counts */

typedef struct sample {
    double handed_over, put; /* microseconds a page, first visit included */
} sample_t;

/* Time to write to every page of a mapping, in microseconds a page. */
static double visit(volatile char *pages, size_t page)
{
    double start = iso_os_now();
    for (size_t i = 0; i < SAMPLE_PAGES; i++)
        pages[i * page] = 1;
    return (iso_os_now() - start) * 1e6 / SAMPLE_PAGES;
}

/* maps: the source's pages; the target's view of the same pages; new pages through the source's
 * alias; the target's view of those. */
static void measure(void *const maps[4], size_t page, sample_t *sample_p)
{
    size_t size = SAMPLE_PAGES * page;
    visit(maps[0], page);
    sample_p->handed_over = visit(maps[1], page);
    double start = iso_os_now();
    iso_os_populate(maps[2], size);
    memcpy(maps[2], maps[0], size);
    sample_p->put = (iso_os_now() - start) * 1e6 / SAMPLE_PAGES + visit(maps[3], page);
}

static bool take_sample(sample_t *sample_p)
{
    size_t page = iso_os_page_size(), size = SAMPLE_PAGES * page;
    void *maps[4] = {NULL};
    int fds[2] = {-1, -1}, mapped = 0;
    for (int i = 0; i < 2; i++)
        if (iso_os_memfd_create("iso-sample", size, &fds[i]) != 0)
            fds[i] = -1;
    while (mapped < 4 && fds[mapped / 2] >= 0 &&
           iso_os_memfd_map(fds[mapped / 2], 0, size, NULL, &maps[mapped]) == 0)
        mapped++;
    if (mapped == 4)
        measure(maps, page, sample_p);
    for (int i = 0; i < mapped; i++)
        iso_os_unmap(maps[i], size);
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return mapped == 4;
}

iso_backing_t iso_backing_choose(const iso_logger_t *logger, iso_backing_t wish, uint32_t ranks)
{
    sample_t sample = {0, 0};
    if (wish != ISO_BACKING_AUTO)
        return wish;
    if (ranks == 1)
        return ISO_BACKING_ANON;
    for (int i = 0; i < SAMPLES; i++) {
        sample_t once = {0, 0};
        if (!take_sample(&once)) {
            iso_log(logger, ISO_LOG_INFO, "backing auto: shared (could not measure)");
            return ISO_BACKING_SHARED;
        }
        if (i == 0 || once.handed_over < sample.handed_over)
            sample.handed_over = once.handed_over;
        if (i == 0 || once.put < sample.put)
            sample.put = once.put;
    }
    bool shared = sample.handed_over <= 1.5 * sample.put;
    iso_log(logger, ISO_LOG_INFO,
            "backing auto: %s (first visit to a page handed over %.2f us, put %.2f us)",
            shared ? "shared" : "private", sample.handed_over, sample.put);
    return shared ? ISO_BACKING_SHARED : ISO_BACKING_PRIVATE;
}
