// One run of iso_run, looked at from outside: what it prints, how it ends, and what it leaves behind. A
// program that includes this adopts orphans, so that whatever is left behind is its child.
#ifndef ISO_TESTS_BOOTSTRAP_PROCESS_HPP
#define ISO_TESTS_BOOTSTRAP_PROCESS_HPP

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <pty.h>
#include <sstream>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

using words = std::vector<std::string>;
using clock_type = std::chrono::steady_clock;
using namespace std::chrono_literals;

inline const std::string run = ISO_TEST_RUN;       // the path of iso_run
inline const std::string rank = ISO_TEST_RANK;     // ... of bootstrap_rank
inline const std::string module = ISO_TEST_MODULE; // ... of the module

// Generous, for machines that are slow: only a hang reaches it.
constexpr auto patience = 60s;

inline words operator+(words left, const words &right)
{
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

// iso_run's options for n ranks, and the scenario that they run.
inline words job(int n, const words &scenario, const words &options = {})
{
    return words{run, "-n", std::to_string(n)} + options + words{rank, module} + scenario;
}

// One run of a program, with pipes to its standard streams (or a terminal).
class process {
  public:
    explicit process(const words &command, bool terminal = false)
    {
        // What this program inherits from its own start must not matter.
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (terminal)
            start_in_terminal(command);
        else
            start_with_pipes(command);
    }
    process(const process &) = delete;
    process &operator=(const process &) = delete;

    ~process()
    {
        close_fd(in_);
        close_fd(out_);
        for (int i = 0; i < 5000 && !nothing_left(); i++) {
            kill_children();
            std::this_thread::sleep_for(1ms);
        }
    }

    pid_t pid() const
    {
        return pid_;
    }

    void send(int number) const
    {
        REQUIRE(::kill(pid_, number) == 0);
    }

    void write(const std::string &text) const
    {
        REQUIRE(::write(in_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    }

    void end_input()
    {
        close_fd(in_);
    }

    // Has anybody the other end of its standard input open?
    bool has_reader() const
    {
        pollfd ready = {in_, 0, 0};
        return ::poll(&ready, 1, 0) == 0;
    }

    // Reads until the output has `count` lines that contain `text`.
    void wait_for(const std::string &text, size_t count)
    {
        const auto deadline = clock_type::now() + patience;
        while (lines_with(text).size() < count)
            REQUIRE(read_some(deadline));
    }

    // Waits for the end; returns the exit status (as a shell says it).
    int end()
    {
        const auto deadline = clock_type::now() + patience;
        end_input();
        int status = 0;
        pid_t ended = 0;
        while ((ended = ::waitpid(pid_, &status, WNOHANG)) == 0) {
            if (clock_type::now() > deadline)
                FAIL("no end after " << patience.count() << " s; output:\n" << output_);
            read_some(clock_type::now() + 5ms);
        }
        REQUIRE(ended == pid_);
        left_ = !nothing_left();
        while (read_some(clock_type::now() + (left_ ? 0ms : 1000ms)))
            ;
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }

    // Was any process of the job alive when it had ended?
    bool left_something() const
    {
        return left_;
    }

    // Is any process of the job alive still, after a while?
    bool all_end_within(std::chrono::milliseconds limit)
    {
        const auto deadline = clock_type::now() + limit;
        while (!nothing_left()) {
            if (clock_type::now() > deadline)
                return false;
            std::this_thread::sleep_for(2ms);
        }
        return true;
    }

    const std::string &output() const
    {
        return output_;
    }

    words lines_with(const std::string &text) const
    {
        words found;
        std::istringstream stream(output_);
        for (std::string line; std::getline(stream, line);)
            if (line.find(text) != std::string::npos)
                found.push_back(line);
        return found;
    }

    size_t count(const std::string &text) const
    {
        return lines_with(text).size();
    }

    // The number that `rank R: KEY NUMBER` has.
    pid_t number_of(int r, const std::string &key) const
    {
        const std::string start = "rank " + std::to_string(r) + ": " + key + " ";
        const words lines = lines_with(start);
        REQUIRE(!lines.empty());
        return static_cast<pid_t>(std::stol(lines.front().substr(start.size())));
    }

  private:
    [[noreturn]] static void become(const words &command)
    {
        std::vector<char *> argv;
        argv.reserve(command.size() + 1);
        for (const std::string &word : command)
            argv.push_back(const_cast<char *>(word.c_str()));
        argv.push_back(nullptr);
        for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE})
            ::signal(number, SIG_DFL);
        for (int fd = 3; fd < 1024; fd++) // those that do not exist do not matter
            ::fcntl(fd, F_SETFD, FD_CLOEXEC);
        sigset_t none;
        sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::execvp(argv[0], argv.data());
        ::_exit(125);
    }

    void start_with_pipes(const words &command)
    {
        int in[2], out[2];
        REQUIRE(::pipe2(in, O_CLOEXEC) == 0);
        REQUIRE(::pipe2(out, O_CLOEXEC) == 0);
        pid_ = ::fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            ::setpgid(0, 0);
            ::dup2(in[0], 0);
            ::dup2(out[1], 1);
            ::dup2(out[1], 2);
            become(command);
        }
        ::close(in[0]);
        ::close(out[1]);
        in_ = in[1];
        out_ = out[0];
    }

    void start_in_terminal(const words &command)
    {
        int master = -1;
        pid_ = ::forkpty(&master, nullptr, nullptr, nullptr);
        REQUIRE(pid_ >= 0);
        if (pid_ == 0)
            become(command);
        out_ = master;
        in_ = ::fcntl(master, F_DUPFD_CLOEXEC, 3);
    }

    static void close_fd(int &fd)
    {
        if (fd >= 0)
            ::close(fd);
        fd = -1;
    }

    // Reaps what has ended; true if there are no children at all.
    bool nothing_left() const
    {
        int status = 0;
        pid_t pid = 0;
        while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0)
            ;
        return pid < 0 && errno == ECHILD;
    }

    static void kill_children()
    {
        std::ifstream children("/proc/self/task/" + std::to_string(::getpid()) + "/children");
        for (pid_t child = 0; children >> child;)
            ::kill(child, SIGKILL);
    }

    // False at the end of the output, and at the deadline.
    bool read_some(clock_type::time_point deadline)
    {
        pollfd ready = {out_, POLLIN, 0};
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock_type::now());
        if (out_ < 0 || ::poll(&ready, 1, std::max<int>(0, static_cast<int>(left.count()))) <= 0)
            return false;
        char buffer[4096];
        const ssize_t len = ::read(out_, buffer, sizeof buffer);
        if (len <= 0)
            return false;
        output_.append(buffer, static_cast<size_t>(len));
        return true;
    }

    pid_t pid_ = -1;
    int in_ = -1, out_ = -1;
    bool left_ = false;
    std::string output_;
};

inline double seconds_since(clock_type::time_point start)
{
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

// Runs to the end; all ranks must say "done" and nothing be left.
inline void expect_done(int n, const words &scenario)
{
    process p(job(n, scenario));
    const int status = p.end();
    INFO(p.output());
    CHECK(status == 0);
    CHECK(p.count(": done") == static_cast<size_t>(n));
    CHECK(p.count("iso_run:") == 0);
    CHECK_FALSE(p.left_something());
}

// A rank in a shell that waits for it, instead of becoming it.
inline words wrapped(int n, const words &scenario, const words &options = {})
{
    return words{run, "-n", std::to_string(n)} + options +
           words{"sh", "-c", "\"$0\" \"$@\"; exit $?", rank, module} + scenario;
}

// The children of a process.
inline std::vector<pid_t> children_of(pid_t pid)
{
    std::vector<pid_t> found;
    std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) +
                       "/children");
    for (pid_t child = 0; file >> child;)
        found.push_back(child);
    return found;
}

#endif
