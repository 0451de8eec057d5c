// Ranks that fail or leave something behind: how the job ends, and what the others hear.
#include "process.hpp"
#include <tuple>
#include <utility>

TEST_CASE("the first rank that fails ends the job, is named, and gives the status")
{
    const auto [how, status, cause] =
        GENERATE(std::make_tuple("3", 3, "exited with status 3"),
                 std::make_tuple("kill", 137, "was killed by signal 9 (Killed)"),
                 std::make_tuple("abort", 134, "was killed by signal 6 (Aborted)"));
    process p(job(3, {"exit", how}));
    CHECK(p.end() == status);
    INFO(p.output());
    CHECK(p.count("iso_run: rank 1 (pid " + std::to_string(p.number_of(1, "pid")) + ") " + cause) ==
          1);
    CHECK(p.count("; ending the job") == 1);
    CHECK(p.count("iso_run:") == 1);
    CHECK_FALSE(p.left_something());
}

TEST_CASE("with --keep-going the others run on after a failure")
{
    process p(words{run, "--keep-going", "-n", "3", "sh", "-c",
                    "[ $ISO_LOCAL_RANK = 1 ] && exit 7; sleep 0.3; echo lived; exit 0"});
    CHECK(p.end() == 7);
    INFO(p.output());
    CHECK(p.count("lived") == 2);
    CHECK(p.count("exited with status 7; the others go on") == 1);
}

TEST_CASE("with --keep-going the status is that of the first of several failures")
{
    process p(words{run, "--keep-going", "-n", "3", "sh", "-c",
                    "sleep 0.$((5 - 2 * ISO_LOCAL_RANK)); exit $((ISO_LOCAL_RANK + 1))"});
    CHECK(p.end() == 3);
    CHECK(p.count("exited with status") == 3);
}

TEST_CASE("a death during an allgather ends the job")
{
    process p(job(4, {"death-in-allgather", "kill"}));
    CHECK(p.end() == 137);
    INFO(p.output());
    CHECK(p.count("rank 1 (pid " + std::to_string(p.number_of(1, "pid")) +
                  ") was killed by signal 9 (Killed); ending the job") == 1);
    CHECK(p.count("status 0") == 0);
    CHECK_FALSE(p.left_something());
}

TEST_CASE("a death during an allgather, with --keep-going: zeros in its place, and the news of it")
{
    const auto [how, status] =
        GENERATE(std::make_pair("kill", 137), std::make_pair("5", 5), std::make_pair("0", 0));
    process p(job(4, {"death-in-allgather", how}, {"--keep-going"}));
    CHECK(p.end() == status);
    INFO(p.output());
    CHECK(p.count(": done") == 3);
    CHECK(p.count("; the others go on") == 1);
}

TEST_CASE("a death in the middle of a contribution: the others see all of it or none")
{
    for (int i = 0; i < 3; i++) {
        process p(job(4, {"death-in-contribution"}, {"--keep-going"}));
        const int status = p.end();
        INFO(p.output());
        CHECK((status == 137 || p.count(": done") == 4)); // it may have been quicker than its end
        CHECK(p.count(": done") >= 3);
    }
}

TEST_CASE("a rank that ends in success without leaving, while others wait, ends the job")
{
    process p(job(3, {"death-in-allgather", "0"}));
    CHECK(p.end() == 1);
    INFO(p.output());
    CHECK(p.count("rank 1 (pid " + std::to_string(p.number_of(1, "pid")) +
                  ") has ended without iso_finalize, and rank") == 1);
    CHECK(p.count("waits for it in an allgather of 1000 bytes: ending the job") == 1);
}

TEST_CASE("deaths are told to ranks that are in no collective")
{
    const auto [how, status] = GENERATE(std::make_pair("kill", 137), std::make_pair("0", 0));
    process p(job(4, {"death-news", how}, {"--keep-going"}));
    CHECK(p.end() == status);
    INFO(p.output());
    CHECK(p.count(": dead 1") == 3);
    CHECK(p.count(": done") == 3);
}

TEST_CASE("news that another call took in keep event_fd readable")
{
    process p(job(3, {"news-stays"}, {"--keep-going"}));
    CHECK(p.end() == 137);
    INFO(p.output());
    CHECK(p.count(": done") == 2);
}

TEST_CASE("a rank that left in order is not told to be dead")
{
    expect_done(4, {"orderly"});
}

TEST_CASE("what ranks leave behind is killed after a normal end")
{
    process p(job(3, {"stray"}));
    CHECK(p.end() == 0);
    INFO(p.output());
    CHECK(p.count(": done") == 3);
    CHECK_FALSE(p.left_something());
}
