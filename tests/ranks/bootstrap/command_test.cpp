// The command line of iso_run.
#include "process.hpp"
#include <tuple>
#include <utility>

TEST_CASE("a program that cannot be run is named in one line")
{
    const auto [program, status, text] = GENERATE(
        std::make_tuple("no-such-program", 127, "no-such-program: no such program in PATH"),
        std::make_tuple("./no/such", 127, "./no/such: cannot be run: No such file"),
        std::make_tuple("/", 126, "/: cannot be run: Permission denied"),
        std::make_tuple("/etc/passwd", 126, "/etc/passwd: cannot be run: Permission denied"));
    process p({run, "-n", "4", program});
    CHECK(p.end() == status);
    INFO(p.output());
    CHECK(p.count(text) == 1);
    CHECK(p.count("") == 1);
    CHECK_FALSE(p.left_something());
}

TEST_CASE("a command line that makes no sense is refused in one line, with status 2")
{
    const auto [arguments, text] = GENERATE(
        std::make_pair(words{}, "the number of ranks is missing"),
        std::make_pair(words{"true"}, "the number of ranks is missing"),
        std::make_pair(words{"-n", "0", "true"}, "-n 0: the number of ranks must be"),
        std::make_pair(words{"-n", "-3", "true"}, "-n -3: "),
        std::make_pair(words{"-n", "2x", "true"}, "-n 2x: "),
        std::make_pair(words{"-n", "", "true"}, "-n : "),
        std::make_pair(words{"-n", "65537", "true"}, "-n 65537: "),
        std::make_pair(words{"-n", "99999999999999999999", "true"}, "-n 99999999999999999999: "),
        std::make_pair(words{"-n", "2"}, "the program is missing"),
        std::make_pair(words{"-n", "2", "--"}, "the program is missing"),
        std::make_pair(words{"-n", "2", "--timeout", "0", "true"}, "--timeout 0: "),
        std::make_pair(words{"-n", "2", "--timeout", "soon", "true"}, "--timeout soon: "),
        std::make_pair(words{"-n", "2", "--bogus", "true"}, "--bogus"));
    process p(words{run} + arguments);
    CHECK(p.end() == 2);
    INFO(p.output());
    CHECK(p.count(text) == 1);
    CHECK(p.count("") == 1);
}

TEST_CASE("options after the program are the program's")
{
    process p({run, "-n", "2", "--", "echo", "-n", "0", "--help"});
    CHECK(p.end() == 0);
    CHECK(p.output() == "0 --help0 --help");
}

TEST_CASE("--help and --version")
{
    process help({run, "--help"});
    CHECK(help.end() == 0);
    CHECK(help.count("Usage: iso_run -n N") == 1);
    process version({run, "--version"});
    CHECK(version.end() == 0);
    CHECK(version.count("iso_run 0.") == 1);
}

TEST_CASE("after --timeout the job ends with status 124")
{
    const auto start = clock_type::now();
    process p(job(3, {"sleep", "meek"}, {"--timeout", "0.5"}));
    CHECK(p.end() == 124);
    INFO(p.output());
    CHECK(p.count("the job has not ended within 0.5 s (--timeout)") == 1);
    CHECK(seconds_since(start) >= 0.5);
    CHECK_FALSE(p.left_something());

    process quick(job(2, {"collectives"}, {"--timeout", "50"}));
    CHECK(quick.end() == 0);
}
