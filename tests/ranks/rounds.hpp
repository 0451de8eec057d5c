// Objects of a runtime in Converse's manner that go round: each rank hands its own on and takes the one that comes.
#ifndef ISO_TESTS_ROUNDS_HPP
#define ISO_TESTS_ROUNDS_HPP

#include "ranks.hpp"
#include <isomalloc/converse.h>
#include <isomalloc/pup.h>

template <typename T> class Rounds {
  public:
    Rounds(Job &job, const char *name, iso_pup_fn pup) : job_(job), name_(name)
    {
        const iso_object_type_t type = {sizeof type, name, sizeof(T), pup, come, nullptr, this};
        EXPECT_STATUS(ISO_OK, CmiIsomallocUseJob(job.job));
        EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &type));
    }
    Rounds(const Rounds &) = delete;
    Rounds &operator=(const Rounds &) = delete;
    // Nothing of the object is here any more but itself, which the caller frees.
    void hand_on(T *leaving)
    {
        iso_request_t *request = nullptr;
        EXPECT_STATUS(
            ISO_OK, iso_migrate_pup(job_.job, (self + 1) % job_.size(), name_, leaving, &request));
        EXPECT_STATUS(ISO_OK, iso_wait(request));
    }
    T *take()
    {
        for (const double until = now() + 60; here_.empty();) {
            EXPECT(now() < until);
            iso_progress_wait(job_.job, 0.5);
        }
        T *object = here_.front();
        here_.pop_front();
        return object;
    }

  private:
    static void come(iso_job_t *, void *object, uint32_t, iso_status_t status, void *arg)
    {
        EXPECT_STATUS(ISO_OK, status);
        static_cast<Rounds *>(arg)->here_.push_back(static_cast<T *>(object));
    }

    Job &job_;
    const char *name_;
    std::deque<T *> here_; // the next one may come before this rank has handed its own on
};

#endif
