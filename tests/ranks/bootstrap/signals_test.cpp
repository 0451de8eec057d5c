// Signals to iso_run, and its own end: nothing of the job survives it.
#include "process.hpp"
#include <cstring>
#include <utility>

TEST_CASE("signals are forwarded and end the job, with all descendants")
{
    const int number = GENERATE(SIGINT, SIGTERM, SIGHUP);
    const auto [how, quick] = GENERATE(std::make_pair("meek", true), std::make_pair("polite", true),
                                       std::make_pair("deaf", false));
    process p(job(3, {"sleep", how}));
    p.wait_for(": pid ", 6);
    const auto start = clock_type::now();
    p.send(number);
    CHECK(p.end() == 128 + number);
    INFO(p.output());
    CHECK_FALSE(p.left_something());
    CHECK(p.count("iso_run: signal " + std::to_string(number)) == 1);
    CHECK(p.count("iso_run:") == 1);
    CHECK(p.count(": signal " + std::to_string(number)) ==
          (std::strcmp(how, "polite") == 0 ? 4 : 1));
    if (quick)
        CHECK(seconds_since(start) < 1.9);
    else
        CHECK(seconds_since(start) > 1.9);
}

TEST_CASE("signals of the program's are passed on to ranks, and not to what is around them")
{
    const bool in_wrapper = GENERATE(false, true);
    process p(in_wrapper ? wrapped(3, {"notified"}) : job(3, {"notified"}));
    p.wait_for(": pid ", 3);
    p.send(SIGUSR1);
    p.wait_for(": signal 10", 3);
    p.send(SIGUSR2);
    p.wait_for(": signal 12", 3);
    CHECK(p.end() == 0);
    INFO(p.output());
    CHECK(p.count(": done") == 3);
    CHECK(p.count("iso_run:") == 0);
}

TEST_CASE("a rank that has not joined does not end by a signal that it cannot know of")
{
    process p(job(2, {"sleep", "meek"}));
    p.wait_for(": pid ", 4);
    p.send(SIGUSR2);
    std::this_thread::sleep_for(200ms);
    p.send(SIGTERM);
    CHECK(p.end() == 128 + SIGTERM);
    INFO(p.output());
    CHECK(p.count("iso_run: signal 15") == 1);
}

TEST_CASE("a signal of the program's to the whole process group ends nothing of iso_run")
{
    process p(job(3, {"notified"}));
    p.wait_for(": pid ", 3);
    REQUIRE(::kill(-p.pid(), SIGUSR1) == 0);
    p.wait_for(": signal 10", 3);
    p.send(SIGUSR2);
    CHECK(p.end() == 0);
    INFO(p.output());
    CHECK(p.count(": done") == 3);
}

TEST_CASE("a signal to the whole process group does no harm")
{
    process p(job(3, {"sleep", "polite"}));
    p.wait_for(": pid ", 6);
    REQUIRE(::kill(-p.pid(), SIGTERM) == 0);
    CHECK(p.end() == 128 + SIGTERM);
    INFO(p.output());
    CHECK_FALSE(p.left_something());
}

TEST_CASE("ctrl-C at a terminal ends the job and reaches each rank once")
{
    process p(job(3, {"sleep", "polite"}), true);
    p.wait_for(": pid ", 6);
    p.write("\x03");
    p.wait_for(": signal 2", 3);
    CHECK(p.end() == 128 + SIGINT);
    INFO(p.output());
    CHECK(p.count("iso_run: signal 2 (Interrupt): ending the job") == 1);
    CHECK_FALSE(p.left_something());
}

TEST_CASE("ranks that wait in a collective are ended by a signal as well")
{
    process p(job(3, {"hold"}));
    p.wait_for(": pid ", 3);
    p.send(SIGTERM);
    p.wait_for(": ending the job", 1); // before end() closes the input, which lets rank 0 go on
    CHECK(p.end() == 128 + SIGTERM);
    CHECK_FALSE(p.left_something());
}

TEST_CASE("an ignored signal stays ignored, as nohup wants it")
{
    process p(words{"sh", "-c", "trap '' HUP; exec \"$@\"", "sh"} + job(2, {"hold"}));
    p.wait_for(": pid ", 2);
    p.send(SIGHUP);
    std::this_thread::sleep_for(200ms);
    CHECK(p.end() == 0);
    INFO(p.output());
    CHECK(p.count(": done") == 2);
}

TEST_CASE("nothing survives when iso_run is killed")
{
    const bool in_wrapper = GENERATE(false, true);
    process p(in_wrapper ? wrapped(3, {"sleep", "deaf"}) : job(3, {"sleep", "deaf"}));
    p.wait_for(": pid ", 6);
    p.send(SIGKILL);
    CHECK(p.end() == 137);
    CHECK(p.all_end_within(5s));
}

TEST_CASE("nothing survives when the process that serves the ranks is killed")
{
    const bool in_wrapper = GENERATE(false, true);
    process p(in_wrapper ? wrapped(3, {"sleep", "deaf"}) : job(3, {"sleep", "deaf"}));
    p.wait_for(": pid ", 6);
    const std::vector<pid_t> servers = children_of(p.pid());
    REQUIRE(servers.size() == 1);
    REQUIRE(::kill(servers.front(), SIGKILL) == 0);
    CHECK(p.end() == 137);
    INFO(p.output());
    CHECK(p.count("the process that served the ranks") == 1);
    CHECK_FALSE(p.left_something());
}

TEST_CASE("a rank that outlives iso_run gets an error, not a hang")
{
    process p(job(3, {"orphan"}));
    p.wait_for(": pid ", 3);
    // Both at once, so that none can clean up after the other.
    const std::vector<pid_t> servers = children_of(p.pid());
    REQUIRE(servers.size() == 1);
    p.send(SIGSTOP);
    REQUIRE(::kill(servers.front(), SIGKILL) == 0);
    p.send(SIGKILL);
    p.wait_for("log 0: iso_run is gone", 2);
    p.wait_for("status -16", 2);
    CHECK(p.end() == 137);
}
