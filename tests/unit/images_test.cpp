// Images that are named when a job begins (ISO_IMAGES).
#include "tests/unit/image.hpp"

TEST_CASE("image: those without heaps can be named when a job begins, any number of them",
          "[image]")
{
    Folder folder;
    {
        Job job;
        for (const char *name : {"0", "1", "2"})
            REQUIRE(save(job.job, folder / name, {}) == ISO_OK);
        REQUIRE(save(job.job, folder / "heap", {job.heap()}) == ISO_OK);
    }
    std::string names;
    for (const char *name : {"0", "1", "2", "heap"}) {
        names += (names.empty() ? "" : ":") + (folder / name);
        for (const std::string &all : {names, folder / "heap:" + names}) {
            if (std::string(name) == "heap" && all != names)
                continue; // that one twice
            INFO(all);
            ScopedEnv env("ISO_IMAGES", all.c_str());
            REQUIRE(in_child([&] {
                        iso_stats_t stats;
                        iso_job_t *job = start();
                        if (job == nullptr || iso_restart(job, nullptr, nullptr) != ISO_OK)
                            return 1;
                        iso_stats(job, &stats);
                        if (stats.heaps != (contains(all, "heap") ? 1 : 0))
                            return 2;
                        return iso_finalize(job) == ISO_OK ? 0 : 3;
                    }).exited_with(0));
        }
    }
}

TEST_CASE("image: named by a path that the program's folder is in, it is found from another one",
          "[image]")
{
    Folder folder;
    {
        Job job;
        REQUIRE(save(job.job, folder / "image", {job.heap()}) == ISO_OK);
    }
    ScopedEnv env("ISO_IMAGES", "image");
    REQUIRE(in_child([&] {
                if (chdir(folder.path().c_str()) != 0)
                    return 1;
                iso_job_t *job = start();
                if (job == nullptr || chdir("/") != 0)
                    return 2;
                if (iso_restart(job, nullptr, nullptr) != ISO_OK)
                    return 3;
                unlink((folder / "image").c_str()); // all are restored: nobody looks for it
                return iso_restart(job, nullptr, nullptr) == ISO_OK ? 0 : 4;
            }).exited_with(0));
}

TEST_CASE("image: those of one job that are named together are of one set", "[image]")
{
    Folder folder;
    {
        Job job;
        for (const uint64_t set : {0, 7, 8}) {
            iso_checkpoint_params_t params = {};
            params.struct_size = sizeof params;
            params.set = set;
            for (const char *name : {"a", "b"})
                REQUIRE(iso_checkpoint(job.job, (folder / (name + std::to_string(set))).c_str(),
                                       nullptr, 0, &params) == ISO_OK);
        }
    }
    {
        Job job; // another job may have any
        REQUIRE(save(job.job, folder / "other", {}) == ISO_OK);
    }
    Opened seven(folder / "a7");
    REQUIRE(seven.info().set == 7);
    const auto begins = [&](const std::vector<const char *> &names) {
        std::string all;
        for (const char *name : names)
            all += (all.empty() ? "" : ":") + (folder / name);
        ScopedEnv env("ISO_IMAGES", all.c_str());
        const ChildResult child = in_child([&] {
            iso_job_t *job = nullptr;
            const iso_status_t status = iso_init(nullptr, &job);
            return status == ISO_OK ? 0 : status == ISO_ERR_INVALID ? 1 : 2;
        });
        REQUIRE(!child.exited_with(2));
        REQUIRE(contains(child.stderr_text, "are not of one checkpoint") == !child.exited_with(0));
        return child.exited_with(0);
    };
    REQUIRE(begins({"a0", "b0"}));
    REQUIRE(begins({"a7", "b7", "other"}));
    REQUIRE(begins({"other", "a8"}));
    REQUIRE_FALSE(begins({"a7", "b8"}));
    REQUIRE_FALSE(begins({"a7", "other", "b8"}));
    REQUIRE_FALSE(begins({"other", "a0", "b7"}));
}
