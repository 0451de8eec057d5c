// The launcher iso_run and the bootstrap module `local`, tested from outside: each test starts
// iso_run with a few ranks of bootstrap_rank and looks at what they print, how it ends, and what it
// leaves behind. This program adopts orphans, so that whatever is left behind is its child.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <pty.h>
#include <set>
#include <sstream>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using words = std::vector<std::string>;
using clock_type = std::chrono::steady_clock;
using namespace std::chrono_literals;

const std::string run = ISO_TEST_RUN;       // the path of iso_run
const std::string rank = ISO_TEST_RANK;     // ... of bootstrap_rank
const std::string module = ISO_TEST_MODULE; // ... of the module

// Generous, for machines that are slow: only a hang reaches it.
constexpr auto patience = 60s;

words operator+(words left, const words &right)
{
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

// iso_run's options for n ranks, and the scenario that they run.
words job(int n, const words &scenario, const words &options = {})
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

double seconds_since(clock_type::time_point start)
{
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

// Runs to the end; all ranks must say "done" and nothing be left.
void expect_done(int n, const words &scenario)
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
words wrapped(int n, const words &scenario, const words &options = {})
{
    return words{run, "-n", std::to_string(n)} + options +
           words{"sh", "-c", "\"$0\" \"$@\"; exit $?", rank, module} + scenario;
}

// The children of a process.
std::vector<pid_t> children_of(pid_t pid)
{
    std::vector<pid_t> found;
    std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) +
                       "/children");
    for (pid_t child = 0; file >> child;)
        found.push_back(child);
    return found;
}

} // namespace

// ---- collectives -------------------------------------------------------------------------------

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

// ---- misuse ------------------------------------------------------------------------------------

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

// ---- the process that a rank is ----------------------------------------------------------------

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

// ---- the command line --------------------------------------------------------------------------

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

// ---- ends of ranks -----------------------------------------------------------------------------

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

// ---- wrappers ----------------------------------------------------------------------------------

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

// ---- signals to iso_run ------------------------------------------------------------------------

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
