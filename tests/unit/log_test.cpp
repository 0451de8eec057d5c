// The log: one line a message, levels, ranks, and the last words of iso_fatal.
#include "core/log.h"
#include "tests/unit/support.hpp"
#include <cerrno>

TEST_CASE("a message is one line with rank and level", "[log]")
{
    const iso_logger_t logger = {ISO_LOG_INFO, 7};
    const ChildResult child = in_child([&] {
        iso_log(&logger, ISO_LOG_WARN, "%s is %d", "answer", 42);
        return 0;
    });
    CHECK(child.stderr_text == "[7] isomalloc: WARN answer is 42\n");
}

TEST_CASE("a rank that is not known yet is shown as such", "[log]")
{
    const iso_logger_t logger = {ISO_LOG_INFO, -1};
    const ChildResult child = in_child([&] {
        iso_log(&logger, ISO_LOG_INFO, "hello");
        return 0;
    });
    CHECK(child.stderr_text == "[?] isomalloc: INFO hello\n");
}

TEST_CASE("messages above the level are dropped", "[log]")
{
    const iso_logger_t logger = {ISO_LOG_WARN, 0};
    const ChildResult child = in_child([&] {
        iso_log(&logger, ISO_LOG_DEBUG, "debug");
        iso_log(&logger, ISO_LOG_INFO, "info");
        iso_log(&logger, ISO_LOG_ERROR, "error");
        return 0;
    });
    CHECK(child.stderr_text == "[0] isomalloc: ERROR error\n");
}

TEST_CASE("a value with line breaks cannot fake a second line", "[log]")
{
    const iso_logger_t logger = {ISO_LOG_WARN, 0};
    const ChildResult child = in_child([&] {
        iso_log(&logger, ISO_LOG_ERROR, "%s", "a\n[1] isomalloc: ERROR b");
        return 0;
    });
    CHECK(line_count(child.stderr_text) == 1);
}

TEST_CASE("a long message is cut visibly and stays one line", "[log]")
{
    const iso_logger_t logger = {ISO_LOG_WARN, 0};
    const std::string text(10000, 'x');
    const ChildResult child = in_child([&] {
        iso_log(&logger, ISO_LOG_ERROR, "%s", text.c_str());
        return 0;
    });
    CHECK(child.stderr_text.size() <= 4096);
    CHECK(child.stderr_text.substr(child.stderr_text.size() - 5) == "x...\n");
    CHECK(line_count(child.stderr_text) == 1);
}

TEST_CASE("logging keeps errno and can print it", "[log]")
{
    const iso_logger_t logger = {ISO_LOG_WARN, 0};
    const ChildResult child = in_child([&] {
        errno = ENOENT;
        const std::string format = "open: %m"; // hidden from the compiler: ISO C++ has no %m
        va_list none{};
        iso_logv(&logger, ISO_LOG_ERROR, format.c_str(), none);
        return errno == ENOENT ? 0 : 1;
    });
    CHECK(child.exited_with(0));
    CHECK(contains(child.stderr_text, "No such file or directory"));
}

TEST_CASE("the default logger takes its level from the environment", "[log]")
{
    {
        ScopedEnv unset("ISO_LOG_LEVEL", nullptr);
        CHECK(iso_logger_default().level == ISO_LOG_WARN);
        CHECK(iso_logger_default().rank == -1);
    }
    {
        ScopedEnv set("ISO_LOG_LEVEL", "Debug");
        CHECK(iso_logger_default().level == ISO_LOG_DEBUG);
    }
    {
        ScopedEnv set("ISO_LOG_LEVEL", "loud");
        CHECK(iso_logger_default().level == ISO_LOG_WARN);
    }
}

TEST_CASE("iso_fatal says why and aborts", "[log]")
{
    const ChildResult child =
        in_child([]() -> int { iso_fatal("heap %p is damaged", (void *)0x10); });
    CHECK(child.aborted());
    CHECK(child.stderr_text == "[?] isomalloc: FATAL heap 0x10 is damaged\n");
}
