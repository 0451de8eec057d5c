// An image takes the place of another when it is whole: not if it cannot be written, nor if the process is killed.
#include "tests/unit/image.hpp"
#include <cerrno>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace {

// A file system of 4 MiB, where the test may mount one.
class SmallDisk {
  public:
    explicit SmallDisk(std::string path) : path_(std::move(path))
    {
        REQUIRE(mkdir(path_.c_str(), 0700) == 0);
        mounted = mount("iso-image-test", path_.c_str(), "tmpfs", 0, "size=4m") == 0;
    }
    ~SmallDisk()
    {
        if (mounted)
            umount(path_.c_str());
        rmdir(path_.c_str());
    }
    SmallDisk(const SmallDisk &) = delete;
    SmallDisk &operator=(const SmallDisk &) = delete;
    bool mounted;

  private:
    std::string path_;
};

// This process's locks of open files fail from here on, as where the file system has none.
bool refuse_locks()
{
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {sizeof filter / sizeof *filter, filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

} // namespace

TEST_CASE("image: what cannot be saved leaves the heaps usable, and the image that was there",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap(), *gone = job.heap();
    Model model(heap, 1);
    model.allocate(100000);
    REQUIRE(iso_heap_destroy(gone) == ISO_OK);
    const std::string path = folder / "image";
    REQUIRE(save(job.job, path, {heap}, "old") == ISO_OK);
    REQUIRE(save(job.job, path, {heap, gone}) == ISO_ERR_NOT_OWNER);
    REQUIRE(save(job.job, path, {heap, heap}) == ISO_ERR_BUSY);
    REQUIRE(save(job.job, folder.path(), {heap}) == ISO_ERR_INVALID); // a folder
    REQUIRE(save(job.job, folder / "no/image", {heap}) == ISO_ERR_SYSTEM);
    REQUIRE(save(job.job, path, {heap}, std::string((1u << 20) + 1, 'x')) == ISO_ERR_INVALID);
    { // somebody else is writing it
        const int fd = open((path + ".part").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        struct flock whole = {};
        whole.l_type = F_WRLCK;
        REQUIRE(fcntl(fd, F_OFD_SETLK, &whole) == 0);
        REQUIRE(save(job.job, path, {heap}) == ISO_ERR_BUSY);
        close(fd); // as if it was killed: what it left is written over
    }
    model.check_all();
    model.allocate(100000);
    Opened old(path);
    REQUIRE(std::string(static_cast<const char *>(old.info().user), old.info().user_len) == "old");
    REQUIRE(save(job.job, path, {heap}, "new") == ISO_OK);
    REQUIRE(iso_image_verify(old.image) == ISO_OK); // what is open stays what it was
    REQUIRE(folder.files() == std::set<std::string>{"image"});
    iso_heap_t *restored = nullptr;
    REQUIRE(iso_image_restore(job.job, old.image, 1, &restored) == ISO_ERR_INVALID);
    model.check_all();
}

TEST_CASE("image: killed at any step of a checkpoint, the old image or the new one is there, whole",
          "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    const auto checkpoint = [&](const char *user) {
        iso_params_t params;
        iso_job_t *job = nullptr;
        iso_heap_t *heap = nullptr;
        if (iso_params_init(&params) != ISO_OK)
            return 1;
        params.space_size = 16ull << 30;
        if (iso_init(&params, &job) != ISO_OK || iso_heap_create(job, &heap) != ISO_OK)
            return 2;
        void *block = iso_malloc(heap, 3u << 20);
        std::memset(block, user[0], 3u << 20);
        iso_heap_set_root(heap, block);
        iso_checkpoint_params_t own = {sizeof own, user, 1, nullptr, 0};
        const iso_status_t status = iso_checkpoint(job, path.c_str(), &heap, 1, &own);
        iso_finalize(job);
        return status == ISO_OK ? 0 : 3;
    };
    const std::pair<const char *, bool> steps[] = {{"begun", false},  {"some", false},
                                                   {"pages", false},  {"written", false},
                                                   {"synced", false}, {"renamed", true}};
    for (const auto &[step, is_new] : steps) {
        INFO(step);
        REQUIRE(in_child([&] { return checkpoint("o"); }).exited_with(0));
        REQUIRE(folder.files() == std::set<std::string>{"image"}); // nothing left of the one before
        {
            ScopedEnv env("ISO_TEST_CHECKPOINT_AT", step);
            const ChildResult child = in_child([&] { return checkpoint("n"); });
            REQUIRE(WIFSIGNALED(child.status));
            REQUIRE(WTERMSIG(child.status) == SIGKILL);
        }
        REQUIRE(folder.files().size() == (is_new ? 1 : 2));
        Opened opened(path);
        REQUIRE(opened.status == ISO_OK);
        REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        REQUIRE(*static_cast<const char *>(opened.info().user) == (is_new ? 'n' : 'o'));
        Job job;
        iso_heap_t *heap = nullptr;
        REQUIRE(iso_image_restore(job.job, opened.image, 0, &heap) == ISO_OK);
        REQUIRE(*static_cast<const char *>(iso_heap_root(heap)) == (is_new ? 'n' : 'o'));
    }
}

TEST_CASE("image: a file of the user's that is called as one that is being written stays as it is",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    const std::string path = folder / "image", part = path + ".part";
    for (const std::string &text :
         {std::string("x"), std::string("a file of the user's"), std::string(10000, '\0')}) {
        write_file(part, text);
        REQUIRE(save(job.job, path, {heap}) == ISO_ERR_INVALID);
        REQUIRE(contents_of(part) == text);
        REQUIRE(folder.files() == std::set<std::string>{"image.part"});
    }
    REQUIRE(unlink(part.c_str()) == 0);
    REQUIRE(save(job.job, part, {heap}) == ISO_ERR_INVALID); // no image has such a name
    REQUIRE(save(job.job, folder / "other", {heap}) == ISO_OK);
    REQUIRE(link((folder / "other").c_str(), part.c_str()) == 0);
    REQUIRE(save(job.job, path, {heap}) == ISO_ERR_INVALID);
    Opened other(folder / "other");
    REQUIRE(other.status == ISO_OK);
    REQUIRE(unlink(part.c_str()) == 0);
    REQUIRE(save(job.job, path, {heap}) == ISO_OK);
    REQUIRE(folder.files() == std::set<std::string>{"image", "other"});
}

TEST_CASE("image: on a file system without locks, one that may be being written is not touched",
          "[image]")
{
    Folder folder;
    const std::string path = folder / "image", part = path + ".part";
    const auto without_locks = [&](iso_status_t expected) {
        return in_child([&] {
            iso_job_t *job = start();
            if (job == nullptr || !refuse_locks())
                return 1;
            return save(job, path, {}) == expected ? 0 : 2;
        });
    };
    REQUIRE(without_locks(ISO_OK).exited_with(0));
    REQUIRE(folder.files() == std::set<std::string>{"image"});
    REQUIRE(rename(path.c_str(), part.c_str()) == 0); // whole, but not renamed yet
    const std::string bytes = contents_of(part);
    const ChildResult child = without_locks(ISO_ERR_BUSY);
    REQUIRE(child.exited_with(0));
    REQUIRE(contains(child.stderr_text, "image.part is there, and cannot be locked"));
    REQUIRE(contents_of(part) == bytes);
    REQUIRE(folder.files() == std::set<std::string>{"image.part"});
    Job job; // with locks it is what a process that was killed has left
    REQUIRE(save(job.job, path, {}) == ISO_OK);
    REQUIRE(folder.files() == std::set<std::string>{"image"});
}

TEST_CASE("image: ulimit -f leaves the old image whole, and the process alive", "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    const ChildResult child = in_child([&] {
        iso_job_t *job = start();
        iso_heap_t *heap = nullptr;
        if (job == nullptr || iso_heap_create(job, &heap) != ISO_OK ||
            save(job, path, {heap}, "old") != ISO_OK)
            return 1;
        std::memset(iso_malloc(heap, 8u << 20), 1, 8u << 20);
        const rlimit limit = {4u << 20, 4u << 20};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            return 2;
        return save(job, path, {heap}, "new") == ISO_ERR_SYSTEM ? 0 : 3;
    });
    REQUIRE(child.exited_with(0));
    REQUIRE(contains(child.stderr_text, "ulimit -f"));
    REQUIRE(folder.files() == std::set<std::string>{"image"});
    Opened opened(path);
    REQUIRE(opened.status == ISO_OK);
    REQUIRE(std::string(static_cast<const char *>(opened.info().user), opened.info().user_len) ==
            "old");
}

TEST_CASE("image: a full disk leaves the old image whole, and says how much is wanted", "[image]")
{
    Folder folder;
    const std::string path = folder / "disk/image";
    const SmallDisk disk(folder / "disk");
    if (!disk.mounted) {
        WARN("left out: a small file system cannot be mounted here: " << std::strerror(errno));
        return;
    }
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 1);
    model.allocate(1u << 20);
    REQUIRE(save(job.job, path, {heap}, "old") == ISO_OK);
    model.allocate(8u << 20);
    REQUIRE(save(job.job, path, {heap}, "new") == ISO_ERR_SYSTEM);
    REQUIRE(access((path + ".part").c_str(), F_OK) != 0);
    model.check_all();
    model.allocate(100);
    Opened opened(path);
    REQUIRE(opened.status == ISO_OK);
    REQUIRE(iso_image_verify(opened.image) == ISO_OK);
    REQUIRE(opened.info().page_bytes < 2u << 20);
}
