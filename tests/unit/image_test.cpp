// Images of heaps: saved, looked at, restored, cut, damaged, and replaced.
#include "core/checksum.h"
#include "core/image.h"
#include "core/os.h"
#include "tests/unit/allocator.hpp"
#include "tests/unit/support.hpp"
#include <cerrno>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <isomalloc/checkpoint.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

// A folder of the test's own, removed with the files in it.
class Folder {
  public:
    Folder()
    {
        char name[] = "/tmp/iso-image-test-XXXXXX";
        REQUIRE(mkdtemp(name) != nullptr);
        path_ = name;
    }
    ~Folder()
    {
        for (const std::string &file : files())
            unlink((path_ + "/" + file).c_str());
        rmdir(path_.c_str());
    }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    [[nodiscard]] std::string operator/(const std::string &name) const
    {
        return path_ + "/" + name;
    }
    [[nodiscard]] const std::string &path() const
    {
        return path_;
    }
    [[nodiscard]] std::set<std::string> files() const
    {
        std::set<std::string> names;
        DIR *folder = opendir(path_.c_str());
        for (const dirent *entry = nullptr; (entry = readdir(folder)) != nullptr;)
            if (entry->d_name[0] != '.')
                names.insert(entry->d_name);
        closedir(folder);
        return names;
    }

  private:
    std::string path_;
};

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

std::string contents_of(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::string &path, const std::string &bytes)
{
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    REQUIRE(file.flush());
}

// An image that is open as long as it is in scope.
struct Opened {
    iso_image_t *image = nullptr;
    iso_status_t status;
    explicit Opened(const std::string &path) : status(iso_image_open(path.c_str(), &image))
    {
    }
    ~Opened()
    {
        iso_image_close(image);
    }
    Opened(const Opened &) = delete;
    Opened &operator=(const Opened &) = delete;
    [[nodiscard]] iso_image_info_t info() const
    {
        iso_image_info_t info;
        iso_image_query(image, &info);
        return info;
    }
};

iso_status_t save(iso_job_t *job, const std::string &path, const std::vector<iso_heap_t *> &heaps,
                  const std::string &user = "", const char *since = nullptr)
{
    iso_checkpoint_params_t params = {sizeof params, user.data(), user.size(), since, 0};
    return iso_checkpoint(job, path.c_str(), heaps.data(), static_cast<uint32_t>(heaps.size()),
                          &params);
}

// In a child: a job as the environment says, or nullptr.
iso_job_t *start()
{
    iso_job_t *job = nullptr;
    iso_init(nullptr, &job);
    return job;
}

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

// Opens the image and restores heap `number`.
iso_status_t restore(iso_job_t *job, const std::string &path, uint32_t number, iso_heap_t **heap_p)
{
    Opened opened(path);
    return opened.status == ISO_OK ? iso_image_restore(job, opened.image, number, heap_p)
                                   : opened.status;
}

uint64_t slots_free(iso_job_t *job)
{
    iso_stats_t stats;
    iso_stats(job, &stats);
    return stats.slots_free;
}

// Uses the addresses for something else, and gives them back.
void soil(const Job &job)
{
    iso_heap_t *other = job.heap();
    for (const size_t size : {100, 5000, 100000, 3000000, 6000000})
        std::memset(iso_malloc(other, size), 0xff, size);
    REQUIRE(iso_heap_destroy(other) == ISO_OK);
}

} // namespace

TEST_CASE("image: heaps of any blocks, half of them freed, are restored as they were", "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    for (const uint32_t flags : {0u, static_cast<uint32_t>(ISO_HEAP_SHARED)}) {
        Job job(256u << 20, flags);
        const uint64_t before = slots_free(job.job);
        std::vector<iso_heap_t *> heaps;
        std::vector<Model> models;
        for (uint32_t seed = 0; seed < 3; seed++) {
            heaps.push_back(job.heap());
            models.emplace_back(heaps.back(), seed);
            for (int i = 0; i < 2000 / scale; i++)
                models.back().step(64u << 10);
            models.back().allocate(3000000);
        }
        iso_heap_set_root(heaps[1], heaps[2]);
        const std::vector<iso_heap_t *> addresses = heaps;
        for (int again = 0; again < 3; again++) {
            REQUIRE(save(job.job, path, heaps) == ISO_OK);
            std::vector<Model> later = models;
            for (size_t i = 0; i < heaps.size(); i++) {
                models[i].check_all(); // saving has not changed it
                iso_heap_t *none = nullptr;
                REQUIRE(restore(job.job, path, static_cast<uint32_t>(i), &none) == ISO_ERR_BUSY);
                REQUIRE(none == nullptr); // it is here
                for (int step = 0; step < 200 / scale; step++)
                    later[i].step(64u << 10); // of this nothing is in the image
                REQUIRE(iso_heap_destroy(heaps[i]) == ISO_OK);
                heaps[i] = nullptr;
            }
            REQUIRE(slots_free(job.job) == before);
            soil(job);
            for (const size_t i : {2u, 0u, 1u}) {
                REQUIRE(restore(job.job, path, static_cast<uint32_t>(i), &heaps[i]) == ISO_OK);
                models[i].check_all();
            }
            REQUIRE(heaps == addresses);
            REQUIRE(iso_heap_root(heaps[1]) == heaps[2]);
            for (Model &model : models)
                for (int step = 0; step < 200 / scale; step++)
                    model.step(64u << 10);
        }
        for (size_t i = 0; i < heaps.size(); i++) {
            models[i].check_all();
            models[i].free_all();
            REQUIRE(iso_heap_destroy(heaps[i]) == ISO_OK);
        }
        REQUIRE(slots_free(job.job) == before);
        REQUIRE(folder.files() == std::set<std::string>{"image"});
    }
}

TEST_CASE("image: a large block, over many blocks of the file, and a block that moves on its own",
          "[image]")
{
    Folder folder;
    Job job;
    const size_t large = (64u << 20) / scale + 12345;
    iso_heap_t *heap = job.heap();
    auto *bytes = static_cast<unsigned char *>(iso_malloc(heap, large));
    for (size_t i = 0; i < large; i++)
        bytes[i] = static_cast<unsigned char>(i * 7 >> 3);
    void *movable = iso_movable_alloc(job.job, 10000);
    std::memset(movable, 77, 10000);
    iso_heap_t *of_movable = iso_heap_of(movable);
    REQUIRE(save(job.job, folder / "image", {heap, of_movable}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    iso_free(movable);
    soil(job);
    REQUIRE(restore(job.job, folder / "image", 0, &heap) == ISO_OK);
    REQUIRE(restore(job.job, folder / "image", 1, &of_movable) == ISO_OK);
    for (size_t i = 0; i < large; i++)
        if (bytes[i] != static_cast<unsigned char>(i * 7 >> 3))
            FAIL("byte " << i);
    REQUIRE(iso_movable_length(movable) == 10000);
    REQUIRE(static_cast<unsigned char *>(movable)[9999] == 77);
}

TEST_CASE("image: mapped, heaps are what they were, and what is written to them is not in the file",
          "[image]")
{
    Folder folder;
    for (const uint32_t flags : {0u, static_cast<uint32_t>(ISO_HEAP_SHARED)}) {
        Job job(256u << 20, flags);
        const uint64_t before = slots_free(job.job);
        iso_heap_t *heap = job.heap(), *const address = heap;
        REQUIRE(std::string(iso_backing_name(job.job)) == "anon");
        Model model(heap, 3);
        for (int i = 0; i < 2000 / scale; i++)
            model.step(64u << 10);
        model.allocate(3000000);
        REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
        const std::string bytes = contents_of(folder / "image");
        for (int again = 0; again < 3; again++) {
            Model now = model;
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
            soil(job);
            Opened opened(folder / "image");
            REQUIRE(iso_image_map(job.job, opened.image, 0, &heap) == ISO_OK);
            REQUIRE(heap == address);
            iso_heap_t *none = nullptr;
            REQUIRE(iso_image_map(job.job, opened.image, 0, &none) == ISO_ERR_BUSY);
            now.check_all();
            for (int i = 0; i < 2000 / scale; i++) // grows, shrinks, gives pages back
                now.step(64u << 10);
            now.check_all();
            REQUIRE(contents_of(folder / "image") == bytes);
            REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        }
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        REQUIRE(slots_free(job.job) == before);
    }
}

TEST_CASE(
    "image: mapped with its first page damaged is refused, and its addresses are plain memory",
    "[image]")
{
    Folder folder;
    Job job;
    const uint64_t before = slots_free(job.job);
    iso_heap_t *heap = job.heap(), *const address = heap;
    std::memset(iso_malloc(heap, 100000), 1, 100000);
    REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    std::string bytes = contents_of(folder / "image");
    Opened opened(folder / "image");
    const uint64_t page = opened.image->tables.runs[0].offset;
    for (size_t i = 0; i < 4096; i++)
        bytes[page + i] = 0;
    write_file(folder / "image", bytes); // the same file, as it must not be done
    heap = nullptr;
    REQUIRE(iso_image_map(job.job, opened.image, 0, &heap) != ISO_OK);
    REQUIRE(heap == nullptr);
    REQUIRE(slots_free(job.job) == before);
    soil(job);
    heap = job.heap();
    REQUIRE(heap == address);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    REQUIRE(contents_of(folder / "image") == bytes);
}

TEST_CASE("image: those without heaps can be named when a job begins, any number of them",
          "[image]")
{
    Folder folder;
    {
        Job job;
        for (const char *name : {"0", "1", "2"})
            REQUIRE(save(job.job, folder / name, {}) == ISO_OK);
        REQUIRE(save(job.job, folder / "heap", {job.heap()}) == ISO_OK);
    }
    std::string names;
    for (const char *name : {"0", "1", "2", "heap"}) {
        names += (names.empty() ? "" : ":") + (folder / name);
        for (const std::string &all : {names, folder / "heap:" + names}) {
            if (std::string(name) == "heap" && all != names)
                continue; // that one twice
            INFO(all);
            ScopedEnv env("ISO_IMAGES", all.c_str());
            REQUIRE(in_child([&] {
                        iso_stats_t stats;
                        iso_job_t *job = start();
                        if (job == nullptr || iso_restart(job, nullptr, nullptr) != ISO_OK)
                            return 1;
                        iso_stats(job, &stats);
                        if (stats.heaps != (contains(all, "heap") ? 1 : 0))
                            return 2;
                        return iso_finalize(job) == ISO_OK ? 0 : 3;
                    }).exited_with(0));
        }
    }
}

TEST_CASE("image: says what is in it, without a job", "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    iso_heap_t *heap = nullptr, *empty = nullptr;
    void *base = nullptr;
    size_t size = 0;
    {
        Job job;
        heap = job.heap();
        empty = job.heap();
        iso_space(job.job, &base, &size);
        std::memset(iso_malloc(heap, 5u << 20), 1, 5u << 20);
        REQUIRE(save(job.job, path, {heap, empty}, "step 7") == ISO_OK);
        REQUIRE(save(job.job, folder / "none", {}) == ISO_OK);
    }
    Opened opened(path);
    REQUIRE(opened.status == ISO_OK);
    const iso_image_info_t info = opened.info();
    REQUIRE(info.heaps == 2);
    REQUIRE(info.rank == 0);
    REQUIRE(info.size == 1);
    REQUIRE(info.space_base == reinterpret_cast<uintptr_t>(base));
    REQUIRE(info.space_size == size);
    REQUIRE(info.bytes == contents_of(path).size());
    REQUIRE(info.page_bytes > 5u << 20);
    REQUIRE(info.page_bytes < 6u << 20);
    REQUIRE(std::abs(info.time - static_cast<double>(time(nullptr))) < 60);
    REQUIRE(std::string(static_cast<const char *>(info.user), info.user_len) == "step 7");
    iso_image_heap_t first, second, third;
    REQUIRE(iso_image_heap(opened.image, 0, &first) == ISO_OK);
    REQUIRE(iso_image_heap(opened.image, 1, &second) == ISO_OK);
    REQUIRE(iso_image_heap(opened.image, 2, &third) == ISO_ERR_INVALID);
    REQUIRE(first.heap == heap);
    REQUIRE(second.heap == empty);
    REQUIRE(first.slots == 4); // its first, and those of 5 MiB and a header
    REQUIRE(second.slots == 1);
    REQUIRE(first.bytes + second.bytes == info.page_bytes);
    REQUIRE(iso_image_verify(opened.image) == ISO_OK);
    Opened none(folder / "none");
    REQUIRE(none.status == ISO_OK);
    REQUIRE(none.info().heaps == 0);
}

TEST_CASE("image: a file that ends anywhere, or goes on, is refused with a line that says where",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 3);
    for (int i = 0; i < 40; i++)
        model.allocate(1000);
    model.allocate(3000000);
    REQUIRE(save(job.job, folder / "image", {heap}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    heap = nullptr;
    const uint64_t before = slots_free(job.job);
    const std::string whole = contents_of(folder / "image"), cut = folder / "cut";
    const auto refused = [&] {
        const ChildResult child = in_child([&] {
            Opened opened(cut);
            return opened.status == ISO_ERR_INVALID ? 0 : 1;
        });
        REQUIRE(child.exited_with(0));
        REQUIRE(contains(child.stderr_text, "ends at byte"));
        REQUIRE(line_count(child.stderr_text) == 1);
    };
    for (size_t end = 0; end < whole.size(); end += end < 200 ? 1 : end < 70000 ? 7001 : 300007) {
        INFO(end);
        write_file(cut, whole.substr(0, end));
        refused();
    }
    write_file(cut, whole.substr(0, whole.size() - 1));
    refused();
    write_file(cut, whole + '\0');
    refused();
    // and one that is cut when it is open already
    write_file(cut, whole);
    Opened opened(cut);
    REQUIRE(opened.status == ISO_OK);
    REQUIRE(truncate(cut.c_str(), static_cast<off_t>(whole.size() - 50000)) == 0);
    REQUIRE(iso_image_verify(opened.image) == ISO_ERR_INVALID);
    REQUIRE(iso_image_restore(job.job, opened.image, 0, &heap) == ISO_ERR_INVALID);
    REQUIRE(heap == nullptr);
    REQUIRE(slots_free(job.job) == before);
    REQUIRE(restore(job.job, folder / "image", 0, &heap) == ISO_OK);
    model.check_all();
}

TEST_CASE("image: with any byte changed is refused, and nothing has changed", "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 5);
    for (int i = 0; i < 40; i++)
        model.allocate(1000);
    model.allocate(3000000);
    const std::string path = folder / "image";
    REQUIRE(save(job.job, path, {heap}, "of the program") == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    heap = nullptr;
    const uint64_t before = slots_free(job.job);
    const std::string whole = contents_of(path);
    Opened whole_image(path);
    const size_t pages = 4096, lists = pages + whole_image.info().page_bytes;
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC), quiet = open("/dev/null", O_WRONLY);
    const int loud = dup(STDERR_FILENO); // a line for each of them
    REQUIRE(fd >= 0);
    dup2(quiet, STDERR_FILENO);
    // every byte of the header and of the lists, some of the pages
    size_t wrong = SIZE_MAX;
    for (size_t at = 0; at < whole.size() && wrong == SIZE_MAX;
         at += at < pages || at >= lists ? 1 : std::min<size_t>(100003, lists - at)) {
        const char changed = static_cast<char>(whole[at] ^ 1 << at % 8);
        pwrite(fd, &changed, 1, static_cast<off_t>(at));
        if (restore(job.job, path, 0, &heap) == ISO_OK || heap != nullptr ||
            slots_free(job.job) != before)
            wrong = at;
        pwrite(fd, &whole[at], 1, static_cast<off_t>(at));
    }
    dup2(loud, STDERR_FILENO);
    close(loud);
    close(quiet);
    REQUIRE(wrong == SIZE_MAX);
    const ChildResult child = in_child([&] { // says where: the page, and the heap
        const size_t at = pages + (1u << 20) + 5;
        const char changed = static_cast<char>(~whole[at]);
        pwrite(fd, &changed, 1, static_cast<off_t>(at));
        Opened opened(path);
        const bool right =
            opened.status == ISO_OK && iso_image_verify(opened.image) == ISO_ERR_INVALID;
        pwrite(fd, &whole[at], 1, static_cast<off_t>(at));
        return right ? 0 : 1;
    });
    close(fd);
    REQUIRE(child.exited_with(0));
    REQUIRE(contains(child.stderr_text, "bytes " + std::to_string(pages + (1u << 20)) + " to " +
                                            std::to_string(pages + (1u << 20) + 4095) +
                                            " of the file (a page of heap 0x"));
    soil(job);
    REQUIRE(restore(job.job, path, 0, &heap) == ISO_OK);
    model.check_all();
}

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

TEST_CASE("image: of an iso space elsewhere is refused with what to set", "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    void *base = nullptr;
    size_t size = 0;
    {
        Job job;
        iso_space(job.job, &base, &size);
        REQUIRE(save(job.job, path, {job.heap()}) == ISO_OK);
    }
    const std::string elsewhere = std::to_string(reinterpret_cast<uintptr_t>(base) + (64ull << 30));
    ScopedEnv env("ISO_SPACE_BASE", elsewhere.c_str());
    const ChildResult child = in_child([&] {
        iso_params_t params;
        iso_job_t *job = nullptr;
        iso_heap_t *heap = nullptr;
        if (iso_params_init(&params) != ISO_OK)
            return 1;
        params.space_size = size;
        if (iso_init(&params, &job) != ISO_OK)
            return 2;
        const iso_status_t status = restore(job, path, 0, &heap);
        iso_finalize(job);
        return status == ISO_ERR_INVALID && heap == nullptr ? 0 : 3;
    });
    REQUIRE(child.exited_with(0));
    REQUIRE(contains(child.stderr_text, "set ISO_SPACE_BASE=0x"));
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

TEST_CASE("image: an increment with 1 % of the pages written takes at most 5 % of the bytes, and a "
          "chain of them restores what was there each time",
          "[image]")
{
    Folder folder;
    Job job;
    const size_t large = (64u << 20) / scale, pages = large / 4096;
    iso_heap_t *heap = job.heap(), *other = job.heap(), *const address = heap;
    auto *bytes = static_cast<unsigned char *>(iso_malloc(heap, large));
    std::mt19937_64 random(1);
    for (size_t i = 0; i < large / 8; i++)
        reinterpret_cast<uint64_t *>(bytes)[i] = random();
    using Blocks = std::map<unsigned char *, unsigned char>; // small ones, and their first bytes
    std::vector<std::vector<unsigned char>> then;
    std::vector<Blocks> blocks;
    Blocks now;
    const auto name = [&](size_t i) { return folder / ("image." + std::to_string(i)); };
    for (size_t i = 0; i < 6; i++) {
        const std::string since = i > 0 ? name(i - 1) : "";
        REQUIRE(save(job.job, name(i), {other, heap}, "", i > 0 ? since.c_str() : nullptr) ==
                ISO_OK);
        then.emplace_back(bytes, bytes + large);
        blocks.push_back(now);
        Opened full(name(0)), opened(name(i));
        REQUIRE(opened.info().parents <= i); // those that have a page of it
        REQUIRE((opened.info().parents > 0) == (i > 0));
        REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        if (i == 1) { // nothing was written but what a checkpoint itself may
            REQUIRE(opened.info().bytes * 100 <= full.info().bytes);
        } else if (i > 1) {
            REQUIRE(opened.info().bytes * 20 <= full.info().bytes);
        }
        for (size_t page = 0; i > 0 && page < pages / 100; page++)
            bytes[random() % large] ^= 1;
        for (int step = 0; i > 1 && step < 20; step++) { // blocks come and go, too
            auto *block = static_cast<unsigned char *>(iso_malloc(heap, 100 + random() % 3000));
            now[block] = *block = static_cast<unsigned char>(random());
            if (step % 3 == 0) {
                iso_free(now.begin()->first);
                now.erase(now.begin());
            }
        }
    }
    for (const size_t i : {5u, 0u, 3u, 4u, 1u, 2u}) {
        INFO(i);
        if (heap != nullptr)
            REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        heap = nullptr;
        soil(job);
        REQUIRE(restore(job.job, name(i), 1, &heap) == ISO_OK);
        REQUIRE(heap == address);
        REQUIRE(std::memcmp(bytes, then[i].data(), large) == 0);
        for (const auto &[block, fill] : blocks[i])
            REQUIRE(*block == fill);
        iso_heap_stats_t stats; // which also looks for damage
        REQUIRE(iso_heap_stats(heap, &stats) == ISO_OK);
        REQUIRE(stats.blocks == 1 + blocks[i].size());
    }
}

TEST_CASE("image: an increment whose parent is gone, replaced or damaged is refused; nor may it "
          "replace its parent",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 1);
    for (int i = 0; i < 40; i++)
        model.allocate(5000);
    const std::string first = folder / "first", second = folder / "second";
    REQUIRE(save(job.job, first, {heap}) == ISO_OK);
    REQUIRE(save(job.job, second, {heap}, "", first.c_str()) == ISO_OK);
    REQUIRE(save(job.job, first, {heap}, "", first.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, first, {heap}, "", second.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, "/tmp/elsewhere", {heap}, "", first.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, folder / "third", {heap}, "", "/tmp/no such image") == ISO_ERR_SYSTEM);
    model.check_all();
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    heap = nullptr;
    const std::string whole = contents_of(first);
    const auto says = [&](const std::string &line) {
        const ChildResult child = in_child([&] {
            Opened opened(second);
            return opened.status == ISO_OK && iso_image_verify(opened.image) == ISO_OK ? 1 : 0;
        });
        REQUIRE(child.exited_with(0));
        REQUIRE(contains(child.stderr_text, line));
        REQUIRE(restore(job.job, second, 0, &heap) != ISO_OK);
        REQUIRE(heap == nullptr);
    };
    std::string damaged = whole;
    damaged[10000] = static_cast<char>(~damaged[10000]);
    write_file(first, damaged);
    says("bytes 8192 to 12287 of first (a page of heap 0x");
    damaged = whole;
    damaged[100] = static_cast<char>(~damaged[100]);
    write_file(first, damaged);
    says("is an increment to first in the same folder, which was replaced since, or is damaged");
    write_file(first, whole.substr(0, 9000));
    says("first ends at byte 9000");
    unlink(first.c_str());
    says("is an increment to first in the same folder, which cannot be read");
    write_file(first, whole);
    REQUIRE(restore(job.job, second, 0, &heap) == ISO_OK);
    model.check_all();
}

TEST_CASE("image: an increment knows its parent by the name behind a symbolic link, and never "
          "replaces it, whatever that is called",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    Model model(heap, 1);
    for (int i = 0; i < 40; i++)
        model.allocate(5000);
    const std::string first = folder / "first", second = folder / "second",
                      third = folder / "third", latest = folder / "latest";
    const auto verified = [](const std::string &path) {
        Opened opened(path);
        return opened.status == ISO_OK ? iso_image_verify(opened.image) : opened.status;
    };
    REQUIRE(save(job.job, first, {heap}) == ISO_OK);
    REQUIRE(symlink("first", latest.c_str()) == 0);
    REQUIRE(save(job.job, second, {heap}, "", latest.c_str()) == ISO_OK);
    REQUIRE(Opened(second).info().parents == 1);
    REQUIRE(unlink(latest.c_str()) == 0); // moved on, as it is each time
    REQUIRE(symlink("second", latest.c_str()) == 0);
    REQUIRE(verified(second) == ISO_OK);
    REQUIRE(verified(latest) == ISO_OK);
    REQUIRE(save(job.job, second, {heap}, "", latest.c_str()) == ISO_ERR_INVALID);
    REQUIRE(save(job.job, first, {heap}, "", latest.c_str()) == ISO_ERR_INVALID);
    { // a link in another folder: its parents are where the image itself is
        Folder other;
        REQUIRE(symlink(second.c_str(), (other / "link").c_str()) == 0);
        REQUIRE(verified(other / "link") == ISO_OK);
        REQUIRE(save(job.job, third, {heap}, "", (other / "link").c_str()) == ISO_OK);
        REQUIRE(save(job.job, other / "third", {heap}, "", (other / "link").c_str()) ==
                ISO_ERR_INVALID);
        REQUIRE(verified(third) == ISO_OK);
        // the folder by another name
        REQUIRE(symlink(folder.path().c_str(), (other / "folder").c_str()) == 0);
        REQUIRE(save(job.job, other / "folder/first", {heap}, "", third.c_str()) ==
                ISO_ERR_INVALID);
        REQUIRE(save(job.job, other / "folder/fourth", {heap}, "", third.c_str()) == ISO_OK);
        REQUIRE(verified(folder / "fourth") == ISO_OK);
    }
    REQUIRE(link(first.c_str(), (folder / "hard").c_str()) == 0);
    REQUIRE(save(job.job, folder / "hard", {heap}, "", third.c_str()) == ISO_ERR_INVALID);
    // what the new one is called until it is whole
    REQUIRE(rename(third.c_str(), (third + ".part").c_str()) == 0);
    REQUIRE(save(job.job, third, {heap}, "", (third + ".part").c_str()) == ISO_ERR_INVALID);
    REQUIRE(verified(third + ".part") == ISO_OK);
    REQUIRE(verified(first) == ISO_OK);
    model.check_all();
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

TEST_CASE("image: a thread cannot save the heap that its stack is in", "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    const ChildResult child = in_child([&] {
        static iso_job_t *job;
        static iso_status_t inside, beside;
        static std::vector<iso_heap_t *> heaps;
        static const char *name;
        name = path.c_str();
        job = start();
        heaps.resize(2);
        for (iso_heap_t *&heap : heaps)
            if (job == nullptr || iso_heap_create(job, &heap) != ISO_OK)
                return 1;
        ucontext_t here, there;
        getcontext(&there);
        there.uc_stack.ss_size = 5u << 20;
        there.uc_stack.ss_sp = iso_malloc(heaps[1], there.uc_stack.ss_size);
        there.uc_link = &here;
        const auto in_heap = [] {
            inside = iso_checkpoint(job, name, heaps.data(), 2, nullptr);
            beside = iso_checkpoint(job, name, heaps.data(), 1, nullptr);
        };
        makecontext(&there, static_cast<void (*)()>(in_heap), 0);
        swapcontext(&here, &there);
        if (inside != ISO_ERR_BUSY || beside != ISO_OK)
            return 2;
        return save(job, path, heaps) == ISO_OK ? 0 : 3;
    });
    REQUIRE(child.exited_with(0));
    REQUIRE(contains(child.stderr_text, "has its stack in it"));
}

TEST_CASE("image: parameters whose size is not said are refused", "[image]")
{
    Folder folder;
    Job job;
    iso_checkpoint_params_t params = {};
    params.user = "hello";
    params.user_len = 5;
    for (const size_t size : {0u, 8u}) {
        params.struct_size = size;
        REQUIRE(iso_checkpoint(job.job, (folder / "image").c_str(), nullptr, 0, &params) ==
                ISO_ERR_INVALID);
    }
    REQUIRE(folder.files().empty());
    params.struct_size = offsetof(iso_checkpoint_params_t, set); // of an older header
    params.set = 7;
    REQUIRE(iso_checkpoint(job.job, (folder / "image").c_str(), nullptr, 0, &params) == ISO_OK);
    Opened opened(folder / "image");
    REQUIRE(opened.info().user_len == 5);
    REQUIRE(opened.info().set == 0);
}

TEST_CASE("image: what cannot be is refused, also where its checksums are right", "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap(), *none = nullptr;
    const std::string path = folder / "image";
    REQUIRE(save(job.job, path, {heap}) == ISO_OK);
    REQUIRE(iso_heap_destroy(heap) == ISO_OK);
    const std::string whole = contents_of(path);
    const auto changed = [&](const std::function<void(iso_image_t &)> &change) {
        std::string bytes = whole;
        iso_image_t image = {};
        std::memcpy(&image.header, bytes.data(), sizeof image.header);
        const size_t tables = sizeof image.header + image.header.stored_count * ISO_IMAGE_PAGE;
        std::string memory = bytes.substr(tables);
        iso_image_tables_place(&image.header, memory.data(), &image.tables);
        change(image);
        image.header.tables = iso_checksum_of(memory.data(), memory.size());
        image.header.check = iso_checksum_of(&image.header, offsetof(iso_image_header_t, check));
        std::memcpy(bytes.data(), &image.header, sizeof image.header);
        write_file(path, bytes.replace(tables, memory.size(), memory));
        return restore(job.job, path, 0, &none);
    };
    REQUIRE(changed([](iso_image_t &image) { image.header.base += 4096; }) == ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) { image.header.space_size += 4096; }) ==
            ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) { image.header.space_size = -ISO_SLOT_SIZE; }) ==
            ISO_ERR_INVALID);
    REQUIRE(changed([](iso_image_t &image) {
                image.tables.extents[0].count = 1 | ISO_EXTENT_RUN; // a run is of two at least
            }) == ISO_ERR_INVALID);
    REQUIRE(none == nullptr);
    REQUIRE(changed([](iso_image_t &) {}) == ISO_OK);
}

TEST_CASE("image: named by a path that the program's folder is in, it is found from another one",
          "[image]")
{
    Folder folder;
    {
        Job job;
        REQUIRE(save(job.job, folder / "image", {job.heap()}) == ISO_OK);
    }
    ScopedEnv env("ISO_IMAGES", "image");
    REQUIRE(in_child([&] {
                if (chdir(folder.path().c_str()) != 0)
                    return 1;
                iso_job_t *job = start();
                if (job == nullptr || chdir("/") != 0)
                    return 2;
                if (iso_restart(job, nullptr, nullptr) != ISO_OK)
                    return 3;
                unlink((folder / "image").c_str()); // all are restored: nobody looks for it
                return iso_restart(job, nullptr, nullptr) == ISO_OK ? 0 : 4;
            }).exited_with(0));
}

TEST_CASE("image: those of one job that are named together are of one set", "[image]")
{
    Folder folder;
    {
        Job job;
        for (const uint64_t set : {0, 7, 8}) {
            iso_checkpoint_params_t params = {};
            params.struct_size = sizeof params;
            params.set = set;
            for (const char *name : {"a", "b"})
                REQUIRE(iso_checkpoint(job.job, (folder / (name + std::to_string(set))).c_str(),
                                       nullptr, 0, &params) == ISO_OK);
        }
    }
    {
        Job job; // another job may have any
        REQUIRE(save(job.job, folder / "other", {}) == ISO_OK);
    }
    Opened seven(folder / "a7");
    REQUIRE(seven.info().set == 7);
    const auto begins = [&](const std::vector<const char *> &names) {
        std::string all;
        for (const char *name : names)
            all += (all.empty() ? "" : ":") + (folder / name);
        ScopedEnv env("ISO_IMAGES", all.c_str());
        const ChildResult child = in_child([&] {
            iso_job_t *job = nullptr;
            const iso_status_t status = iso_init(nullptr, &job);
            return status == ISO_OK ? 0 : status == ISO_ERR_INVALID ? 1 : 2;
        });
        REQUIRE(!child.exited_with(2));
        REQUIRE(contains(child.stderr_text, "are not of one checkpoint") == !child.exited_with(0));
        return child.exited_with(0);
    };
    REQUIRE(begins({"a0", "b0"}));
    REQUIRE(begins({"a7", "b7", "other"}));
    REQUIRE(begins({"other", "a8"}));
    REQUIRE_FALSE(begins({"a7", "b8"}));
    REQUIRE_FALSE(begins({"a7", "other", "b8"}));
    REQUIRE_FALSE(begins({"other", "a0", "b7"}));
}

TEST_CASE("image: what was never touched gets no memory when it is saved, and zeros take no room",
          "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    const size_t large = 32u << 20;
    for (const char *backing : {"private", "anon"}) {
        INFO(backing);
        ScopedEnv env("ISO_BACKING", backing);
        Job job;
        REQUIRE(std::string(iso_backing_name(job.job)) == backing);
        iso_heap_t *heap = job.heap();
        auto *bytes = static_cast<unsigned char *>(iso_malloc(heap, large));
        const size_t touched = 5 * 4096 + 100; // a page among others, and one of zeros behind
        bytes[touched] = 1;
        bytes[touched + 4096] = 0;
        const auto resident = [&] {
            size_t sum = 0;
            const uintptr_t first = reinterpret_cast<uintptr_t>(bytes) & ~(ISO_SLOT_SIZE - 1);
            for (size_t at = 0; at < large; at += ISO_SLOT_SIZE)
                sum +=
                    iso_os_resident(reinterpret_cast<void *>(first + at), ISO_SLOT_SIZE); // NOLINT
            return sum;
        };
        const size_t before = resident();
        REQUIRE(save(job.job, path, {heap}) == ISO_OK);
        if (std::string(backing) == "private")
            REQUIRE(resident() == before); // of anon, the zero page is counted, too
        struct stat file {};
        REQUIRE(stat(path.c_str(), &file) == 0);
        REQUIRE(static_cast<size_t>(file.st_size) > large);
        REQUIRE(static_cast<size_t>(file.st_blocks) * 512 < large / 8); // with the lists of pages
        REQUIRE(save(job.job, folder / "next", {heap}, "", path.c_str()) == ISO_OK);
        REQUIRE(static_cast<size_t>(Opened(folder / "next").info().bytes) < large / 8);
        REQUIRE(iso_heap_destroy(heap) == ISO_OK);
        soil(job);
        REQUIRE(restore(job.job, folder / "next", 0, &heap) == ISO_OK);
        for (size_t i = 0; i < large; i++)
            if (bytes[i] != (i == touched ? 1 : 0))
                FAIL("byte " << i);
    }
}

TEST_CASE("image: a chain ends with an image of all pages when it is as long as it may be",
          "[image]")
{
    Folder folder;
    Job job;
    iso_heap_t *heap = job.heap();
    auto *bytes = static_cast<unsigned char *>(iso_malloc(heap, 64 * 4096));
    std::memset(bytes, 1, 64 * 4096);
    uint32_t most = 0, last = 0;
    std::string since;
    for (int i = 0; i < 40; i++) {
        const std::string path = folder / std::to_string(i);
        bytes[(i % 64) * 4096] ^= 1;
        REQUIRE(save(job.job, path, {heap}, "", i > 0 ? since.c_str() : nullptr) == ISO_OK);
        Opened opened(path);
        REQUIRE(iso_image_verify(opened.image) == ISO_OK);
        last = opened.info().parents;
        most = std::max(most, last);
        since = path;
    }
    REQUIRE(most == 32);
    REQUIRE(last == 6); // from no. 33 on again
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
