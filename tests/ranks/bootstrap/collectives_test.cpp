// Collectives and blobs of the bootstrap module `local`, and calls of them that make no sense.
#include "process.hpp"
#include <utility>

// ---- collectives --------------------------------------------------------------------------------

TEST_CASE("all ranks get all contributions in rank order")
{
    expect_done(4, {"collectives"});
    expect_done(1, {"collectives"});
}

TEST_CASE("128 ranks gather and pass barriers")
{
    expect_done(128, {"collectives"});
}

TEST_CASE("256 ranks start")
{
    process p({run, "-n", "256", "true"});
    CHECK(p.end() == 0);
    CHECK(p.output().empty());
}

TEST_CASE("a large allgather: 1 MiB of each of 8 ranks")
{
    expect_done(8, {"gather", "1048576"});
}

TEST_CASE("an allgather that is too large is refused to all, in words")
{
    process p(job(3, {"too-large"}));
    CHECK(p.end() == 0);
    INFO(p.output());
    CHECK(p.count("is too large: at most 1073741824 bytes in all") >= 3);
    CHECK(p.count(": status -4") == 3); // ISO_ERR_LIMIT
    CHECK(p.count(": mixed -") == 3);
    CHECK(p.count(": done") == 3);
}

TEST_CASE("every rank finds every other's blob, in each generation its own")
{
    expect_done(5, {"generations", "8"});
    expect_done(1, {"generations", "3"});
}

TEST_CASE("lookups and allgathers while a barrier is under way")
{
    expect_done(4, {"lookup-in-barrier"});
}

TEST_CASE("waiting in a barrier through event_fd uses no processor time")
{
    expect_done(4, {"idle-barrier"});
}

TEST_CASE("different collectives at the same time are an error for all, not a hang")
{
    const auto [kind, text] = GENERATE(
        std::make_pair("kind",
                       "rank 1 called a barrier where rank 0 called an allgather of 16 bytes"),
        std::make_pair("length", "of 15 bytes where rank 0 called an allgather of 16 bytes"),
        std::make_pair("large", "of 200000 bytes where rank 0 called an allgather of 16 bytes"));
    process p(job(4, {"mismatch", kind}));
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count("status -1") == 4); // ISO_ERR_INVALID
    CHECK(p.count(": log 0: ") == 4);
    CHECK(p.count(": done") == 4); // the next collective works
    // Rank 1 may be the first of all; then it is the others that differ from it.
    CHECK((p.count(text) == 4 || p.count("where rank 1 called") == 4 ||
           p.count("where rank 3 called") == 4 || p.count("where rank 2 called") == 4));
}

// ---- misuse -------------------------------------------------------------------------------------

TEST_CASE("calls that make no sense are refused, and spoil nothing")
{
    process p(job(3, {"misuse"}));
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count(": done") == 3);
    CHECK(p.count("has the bootstrap open already") == 3);
    CHECK(p.count("was forked from rank") == 6);
    CHECK(p.count("while one is under way") == 3);
    CHECK(p.count("has published none") == 3);
    CHECK(p.count("a blob of 4097 bytes cannot be published") == 3);
    CHECK(p.count("17 bytes where the caller has room for 8") == 3);
}

TEST_CASE("only one process at a time is the rank")
{
    process p(job(2, {"second", module}));
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count("open -8") == 2); // ISO_ERR_BUSY
    CHECK(p.count("and a rank is one process") == 2);
    CHECK(p.count(": done") == 2);
}

TEST_CASE("a program that a rank starts is not the rank, and is told so")
{
    process p(job(2, {"grandchild", module}));
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count("open -1") == 2); // ISO_ERR_INVALID
    CHECK(p.count("unset ISO_LOCAL_FD to run on its own") == 2);
    CHECK(p.count(": done") == 2);
}

TEST_CASE("without iso_run the module does not detect a job")
{
    process p({rank, module, "try-open"});
    CHECK(p.end() == 98);
    CHECK(p.count("not so: module->detect()") == 1);
}

TEST_CASE("an environment that was tampered with is noticed")
{
    process p({run, "-n", "2", "env", "ISO_LOCAL_SIZE=3", rank, module, "collectives"});
    CHECK(p.end() == 98);
    INFO(p.output());
    CHECK(p.count("of 3 and iso_run says rank") >= 1);
}
