// What a rank finds as a process: input, signals, limits, descriptors, addresses; wrappers around it.
#include "process.hpp"
#include <csignal>
#include <set>
#include <sys/resource.h>

// ---- the process that a rank is -----------------------------------------------------------------

TEST_CASE("standard input goes to rank 0, the others have none")
{
    process p(job(3, {"stdin"}));
    p.write("twelve bytes");
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count("rank 0: stdin 12") == 1);
    CHECK(p.count("rank 1: stdin 0") == 1);
    CHECK(p.count("rank 2: stdin 0") == 1);
}

TEST_CASE("who writes to rank 0's standard input sees that it has closed it")
{
    process p(words{run, "-n", "2", "sh", "-c", "exec <&-; echo closed; exec sleep 30"});
    p.wait_for("closed", 2);
    bool refused = false;
    for (int i = 0; i < 5000 && !refused; i++) {
        refused = !p.has_reader();
        std::this_thread::sleep_for(1ms);
    }
    CHECK(refused);
    p.send(SIGTERM);
    CHECK(p.end() == 128 + SIGTERM);
}

TEST_CASE("a rank has the signals, limits and descriptors that iso_run was started with")
{
    rlimit files = {};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &files) == 0);
    // So few that iso_run has to raise the limit for itself.
    process p(words{"sh", "-c", "ulimit -Sn 100; exec \"$@\"", "sh"} + job(50, {"environment"}));
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count("files 100 group " + std::to_string(p.pid())) == 50);
    CHECK(p.count("descriptor") == 50);
}

TEST_CASE("too few open files are told in one line")
{
    process p(words{"sh", "-c", "ulimit -n 100; exec \"$@\"", "sh"} + job(200, {"stdin"}));
    CHECK(p.end() == 1);
    INFO(p.output());
    CHECK(p.count("200 ranks need 464 open files and the hard limit is 100: raise it") == 1);
    CHECK(p.count("") == 1);
}

TEST_CASE("with --no-aslr all ranks have the same addresses; without it they differ")
{
    process same(job(4, {"address"}, {"--no-aslr"}));
    CHECK(same.end() == 0);
    std::set<std::string> addresses;
    for (const std::string &line : same.lines_with("address"))
        addresses.insert(line.substr(line.find(": ")));
    CHECK(addresses.size() == 1);

    process other(job(4, {"address"}));
    CHECK(other.end() == 0);
    addresses.clear();
    for (const std::string &line : other.lines_with("address"))
        addresses.insert(line.substr(line.find(": ")));
    int randomize = 0;
    std::ifstream("/proc/sys/kernel/randomize_va_space") >> randomize;
    if (randomize == 0)
        WARN("this machine does not randomise addresses");
    else
        CHECK(addresses.size() == 4);
}

// ---- wrappers -----------------------------------------------------------------------------------

TEST_CASE("ranks inside wrappers work as others do")
{
    for (const words &scenario : {words{"collectives"}, words{"generations", "4"}}) {
        process p(wrapped(4, scenario));
        CHECK(p.end() == 0);
        INFO(p.output());
        CHECK(p.count(": done") == 4);
    }
}

TEST_CASE("two programs after each other can be the rank")
{
    process p(
        words{run, "-n", "3", "sh", "-c", "\"$@\" && \"$@\"", "sh", rank, module, "collectives"});
    CHECK(p.end() == 0);
    INFO(p.output());
    CHECK(p.count(": done") == 6);
}

TEST_CASE("a rank that is killed inside its wrapper is reported as the wrapper tells it")
{
    process p(wrapped(3, {"death-in-allgather", "kill"}));
    CHECK(p.end() == 137);
    INFO(p.output());
    CHECK(p.count("rank 1 (pid ") == 1);
    CHECK(p.count("exited with status 137; ending the job") == 1);
}

TEST_CASE("a rank that is killed inside a wrapper that runs on is dead all the same")
{
    process p(words{run, "--keep-going", "-n", "3", "sh", "-c", "\"$@\"; r=$?; sleep 4; exit $r",
                    "sh", rank, module, "death-in-allgather", "kill"});
    CHECK(p.end() == 137);
    INFO(p.output());
    CHECK(p.count(": done") == 2);
    CHECK(p.count("rank 1 has ended without iso_finalize; pid ") == 1);
}

TEST_CASE("a rank whose wrapper is killed is killed before it is called dead")
{
    process p(wrapped(3, {"victim"}, {"--keep-going"}));
    p.wait_for("rank 1: parent ", 1);
    const pid_t member = p.number_of(1, "pid");
    REQUIRE(::kill(p.number_of(1, "parent"), SIGKILL) == 0);
    p.wait_for(": status", 2); // the others have been told
    CHECK((::kill(member, 0) != 0 && errno == ESRCH));
    CHECK(p.end() == 137);
    INFO(p.output());
    CHECK(p.count(": done") == 2);
    CHECK_FALSE(p.left_something());
}
