// What unit tests need to look at the library from outside: environment, standard error, death.
#ifndef ISO_TESTS_UNIT_SUPPORT_HPP
#define ISO_TESTS_UNIT_SUPPORT_HPP

#include <catch2/catch.hpp>
#include <cstdlib>
#include <functional>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

// Sets (or, with nullptr, unsets) a variable of the environment; undone at the end of the scope.
class ScopedEnv {
  public:
    ScopedEnv(const char *name, const char *value) : name_(name)
    {
        const char *old = getenv(name);
        was_set_ = old != nullptr;
        old_ = was_set_ ? old : "";
        value != nullptr ? setenv(name, value, 1) : unsetenv(name);
    }
    ~ScopedEnv()
    {
        was_set_ ? setenv(name_.c_str(), old_.c_str(), 1) : unsetenv(name_.c_str());
    }
    ScopedEnv(const ScopedEnv &) = delete;
    ScopedEnv &operator=(const ScopedEnv &) = delete;

  private:
    std::string name_, old_;
    bool was_set_;
};

// How a child process ended, and what it wrote to standard error.
struct ChildResult {
    int status; // as waitpid gives it
    std::string stderr_text;

    bool exited_with(int code) const
    {
        return WIFEXITED(status) && WEXITSTATUS(status) == code;
    }
    bool aborted() const
    {
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    }
};

// Runs body in a forked child, which ends with its return value as status. For what a process can do
// only once (die, warn once) and for reading standard error. No Catch2 assertion inside.
inline ChildResult in_child(const std::function<int()> &body)
{
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        for (int sig : {SIGABRT, SIGSEGV, SIGBUS})
            signal(sig, SIG_DFL); // not Catch2's handlers
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(body());
    }
    close(ends[1]);
    ChildResult result{};
    char buffer[4096];
    ssize_t n;
    while ((n = read(ends[0], buffer, sizeof buffer)) > 0)
        result.stderr_text.append(buffer, static_cast<size_t>(n));
    close(ends[0]);
    const size_t emulator = result.stderr_text.find("qemu: uncaught target signal");
    if (emulator != std::string::npos) // what qemu's user mode says of a process that a signal ends
        result.stderr_text.erase(emulator);
    REQUIRE(waitpid(pid, &result.status, 0) == pid);
    return result;
}

inline bool contains(const std::string &text, const std::string &part)
{
    return text.find(part) != std::string::npos;
}

inline size_t line_count(const std::string &text)
{
    size_t lines = 0;
    for (char c : text)
        lines += c == '\n';
    return lines;
}

#endif
