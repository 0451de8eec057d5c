// Images of heaps: what is saved is restored as it was, and an image says what is in it.
#include "core/os.h"
#include "tests/unit/image.hpp"
#include <sys/stat.h>
#include <ucontext.h>

TEST_CASE("image: heaps of any blocks, half of them freed, are restored as they were", "[image]")
{
    Folder folder;
    const std::string path = folder / "image";
    for (const uint32_t flags : {0u, static_cast<uint32_t>(ISO_HEAP_SHARED)}) {
        Job job(256u << 20, flags);
        const uint64_t before = job.slots_free();
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
            REQUIRE(job.slots_free() == before);
            job.soil();
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
        REQUIRE(job.slots_free() == before);
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
    job.soil();
    REQUIRE(restore(job.job, folder / "image", 0, &heap) == ISO_OK);
    REQUIRE(restore(job.job, folder / "image", 1, &of_movable) == ISO_OK);
    for (size_t i = 0; i < large; i++)
        if (bytes[i] != static_cast<unsigned char>(i * 7 >> 3))
            FAIL("byte " << i);
    REQUIRE(iso_movable_length(movable) == 10000);
    REQUIRE(static_cast<unsigned char *>(movable)[9999] == 77);
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
        job.soil();
        REQUIRE(restore(job.job, folder / "next", 0, &heap) == ISO_OK);
        for (size_t i = 0; i < large; i++)
            if (bytes[i] != (i == touched ? 1 : 0))
                FAIL("byte " << i);
    }
}
