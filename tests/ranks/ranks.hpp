// What the tests of several ranks share. A test is a function of every rank; whatever goes wrong ends
// the rank with a message and a status, and the launcher then ends the job: nothing waits for ever.
#ifndef ISO_TESTS_RANKS_HPP
#define ISO_TESTS_RANKS_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <isomalloc/isomalloc.h>
#include <string>
#include <time.h>
#include <unistd.h>
#include <vector>

inline uint32_t self = 0;

#define EXPECT(condition)                                                                  \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            std::fprintf(stderr, "rank %u: %s:%d: not so: %s\n", self, __FILE__, __LINE__, \
                         #condition);                                                      \
            std::exit(1);                                                                  \
        }                                                                                  \
    } while (0)

#define EXPECT_STATUS(want, expression)                                                            \
    do {                                                                                           \
        const iso_status_t got_ = (expression);                                                    \
        if (got_ != (want)) {                                                                      \
            std::fprintf(stderr, "rank %u: %s:%d: %s gives '%s', not '%s'\n", self, __FILE__,      \
                         __LINE__, #expression, iso_status_string(got_), iso_status_string(want)); \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

inline double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

struct Arrived {
    iso_heap_t *heap;
    uint32_t source;
    uint64_t bytes;
    std::vector<char> header;
};

// This rank's membership, with the arrivals that nobody has taken yet.
class Job {
  public:
    iso_job_t *job = nullptr;
    std::deque<Arrived> arrivals;

    explicit Job(bool (*admit)(iso_job_t *, const iso_arrival_t *, void *) = nullptr)
    {
        iso_params_t params;
        EXPECT_STATUS(ISO_OK, iso_params_init(&params));
        params.admit = admit;
        params.arrival = on_arrival;
        params.arrival_arg = this;
        EXPECT_STATUS(ISO_OK, iso_init(&params, &job));
        self = iso_rank(job);
    }
    Job(const Job &) = delete;
    Job &operator=(const Job &) = delete;

    void finish()
    {
        EXPECT_STATUS(ISO_OK, iso_finalize(job));
    }
    [[nodiscard]] uint32_t size() const
    {
        return iso_size(job);
    }
    [[nodiscard]] iso_heap_t *heap() const
    {
        iso_heap_t *heap = nullptr;
        EXPECT_STATUS(ISO_OK, iso_heap_create(job, &heap));
        return heap;
    }
    iso_request_t *start(iso_heap_t *heap, uint32_t dest, const void *header = nullptr,
                         size_t length = 0)
    {
        iso_request_t *request = nullptr;
        EXPECT_STATUS(ISO_OK, iso_migrate(heap, dest, header, length, &request));
        return request;
    }
    void send(iso_heap_t *heap, uint32_t dest, const void *header = nullptr, size_t length = 0)
    {
        EXPECT_STATUS(ISO_OK, iso_wait(start(heap, dest, header, length)));
    }
    Arrived receive(double seconds = 60)
    {
        const double until = now() + seconds;
        while (arrivals.empty()) {
            EXPECT(now() < until);
            iso_progress_wait(job, 0.5);
        }
        Arrived first = arrivals.front();
        arrivals.pop_front();
        return first;
    }
    void barrier()
    {
        EXPECT_STATUS(ISO_OK, iso_barrier(job));
    }
    [[nodiscard]] iso_stats_t stats() const
    {
        iso_stats_t stats;
        iso_stats(job, &stats);
        return stats;
    }

  private:
    static void on_arrival(iso_job_t * /*job*/, const iso_arrival_t *arrival, void *arg)
    {
        const char *header = static_cast<const char *>(arrival->header);
        static_cast<Job *>(arg)->arrivals.push_back({arrival->heap,
                                                     arrival->source,
                                                     arrival->bytes,
                                                     {header, header + arrival->header_len}});
    }
};

// Smaller numbers where a sanitizer makes everything slower, or an emulator: ISO_TEST_SCALE.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr unsigned sanitizer_scale = 5;
#else
constexpr unsigned sanitizer_scale = 1;
#endif
inline unsigned scale_of_environment()
{
    const char *text = std::getenv("ISO_TEST_SCALE");
    return text == nullptr ? sanitizer_scale
                           : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}
inline const unsigned scale = scale_of_environment();

// Where a test's random numbers begin: ISO_TEST_SEED, or the same every time.
inline unsigned seed()
{
    const char *text = std::getenv("ISO_TEST_SEED");
    return text == nullptr ? 1 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

// A program of named tests: the first argument says which one runs.
struct Test {
    const char *name;
    void (*run)();
};
template <size_t n> int run_test(const Test (&tests)[n], int argc, char **argv)
{
    for (const Test &test : tests)
        if (argc > 1 && std::string(argv[1]) == test.name) {
            test.run();
            return 0;
        }
    std::fprintf(stderr, "no test '%s'\n", argc > 1 ? argv[1] : "");
    return 2;
}

#endif
