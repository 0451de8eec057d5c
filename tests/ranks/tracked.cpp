// Increments with ISO_TRACK_WRITES of heaps that migrate: what other ranks put into pages that are protected here, and what was written
// elsewhere, is in the next image. Each rank saves what it has after each step, as an increment to its last image; in the end
// each image is restored, in a job of one rank, and compared.
#include "ranks.hpp"
#include <isomalloc/checkpoint.h>
#include <random>

namespace {

const size_t large = (12u << 20) / scale, quiet = 4u << 20;

struct Root {
    unsigned char *block;
    size_t size;
    unsigned char *small[100]; // NULL: none
};

Root *root_of(const iso_heap_t *heap)
{
    return static_cast<Root *>(iso_heap_root(heap));
}

iso_heap_t *make(const Job &job, size_t size)
{
    iso_heap_t *heap = job.heap();
    auto *root = static_cast<Root *>(iso_calloc(heap, 1, sizeof(Root)));
    EXPECT(root != nullptr);
    root->size = size;
    root->block = static_cast<unsigned char *>(iso_malloc(heap, size));
    EXPECT(root->block != nullptr);
    for (size_t i = 0; i < size; i++)
        root->block[i] = static_cast<unsigned char>(self + (i >> 5));
    iso_heap_set_root(heap, root);
    return heap;
}

// Some pages here and there; blocks come and go.
void write(iso_heap_t *heap)
{
    static std::mt19937_64 random(seed() + self);
    Root *root = root_of(heap);
    for (int i = 0; i < 60; i++)
        root->block[random() % root->size] ^= 1;
    std::memset(root->block + random() % (root->size - 20000), 0, 20000);
    for (unsigned char *&small : root->small) {
        if (random() % 4 != 0)
            continue;
        iso_free(small);
        small = random() % 4 == 0 ? nullptr : static_cast<unsigned char *>(iso_malloc(heap, 1000));
        if (small != nullptr)
            std::memset(small, static_cast<int>(random()), 1000);
    }
}

// ---- images ----

struct Contents {
    iso_heap_t *heap;
    Root root;
    std::vector<unsigned char> bytes, small;
};

Contents contents_of(iso_heap_t *heap)
{
    const Root *root = root_of(heap);
    Contents now = {heap, *root, {root->block, root->block + root->size}, {}};
    for (const unsigned char *small : root->small)
        if (small != nullptr)
            now.small.insert(now.small.end(), small, small + 1000);
    return now;
}

struct Image {
    std::string path;
    std::vector<Contents> then;
};

// What fn says at level info, on standard error.
template <typename Fn> std::string said(Fn fn)
{
    char text[4096];
    FILE *file = std::tmpfile();
    const int loud = dup(STDERR_FILENO);
    EXPECT(file != nullptr && loud >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    fn();
    dup2(loud, STDERR_FILENO);
    close(loud);
    std::rewind(file);
    const size_t length = std::fread(text, 1, sizeof text, file);
    std::fclose(file);
    return {text, length};
}

class Images {
  public:
    explicit Images(const Job &job) : job_(job)
    {
        char name[] = "/tmp/iso-tracked-test-XXXXXX";
        EXPECT(mkdtemp(name) != nullptr);
        folder_ = name;
    }
    ~Images()
    {
        for (const Image &image : images_)
            unlink(image.path.c_str());
        rmdir(folder_.c_str());
    }
    Images(const Images &) = delete;
    Images &operator=(const Images &) = delete;

    // Returns how many bytes of it were not read, since nobody has written to them.
    uint64_t save(const std::vector<iso_heap_t *> &heaps)
    {
        Image image = {folder_ + "/" + std::to_string(images_.size()), {}};
        iso_checkpoint_params_t params = {};
        params.struct_size = sizeof params;
        params.since = images_.empty() ? nullptr : images_.back().path.c_str();
        for (iso_heap_t *heap : heaps)
            image.then.push_back(contents_of(heap));
        iso_status_t status = ISO_ERR_INVALID;
        const std::string line = said([&] {
            status = iso_checkpoint(job_.job, image.path.c_str(), heaps.data(),
                                    static_cast<uint32_t>(heaps.size()), &params);
        });
        images_.push_back(image);
        EXPECT_STATUS(ISO_OK, status);
        can_ = can_ && line.find("what is written cannot be told") == std::string::npos;
        const size_t end = line.find(" were not read"), at = line.rfind("pages ", end);
        EXPECT(!can_ || (end != std::string::npos && at != std::string::npos));
        return can_ ? std::stoull(line.substr(at + 6)) * 4096 : 0;
    }
    [[nodiscard]] bool can() const
    {
        return can_;
    }
    // In jobs of this rank alone, when the one that has saved them has ended.
    void check_all() const
    {
        setenv("ISO_BOOTSTRAP", "single", 1);
        for (const Image &image : images_) {
            setenv("ISO_IMAGES", image.path.c_str(), 1);
            iso_job_t *job = nullptr;
            EXPECT_STATUS(ISO_OK, iso_init(nullptr, &job));
            EXPECT_STATUS(ISO_OK, iso_restart(job, nullptr, nullptr));
            for (const Contents &then : image.then) {
                EXPECT(std::memcmp(root_of(then.heap), &then.root, sizeof then.root) == 0);
                const Contents now = contents_of(then.heap);
                EXPECT(now.bytes == then.bytes && now.small == then.small);
                EXPECT_STATUS(ISO_OK, iso_heap_destroy(then.heap));
            }
            EXPECT_STATUS(ISO_OK, iso_finalize(job));
        }
    }

  private:
    const Job &job_;
    std::string folder_;
    std::vector<Image> images_;
    bool can_ = true;
};

// A heap that is at one of two ranks.
struct Traveller {
    Job &job;
    iso_heap_t *heap; // NULL: it is at the other
    void move()
    {
        if (heap != nullptr) {
            job.send(heap, 1 - self);
            heap = nullptr;
        } else {
            heap = job.receive().heap;
        }
        job.barrier();
    }
};

void run(Job &job, Images &images)
{
    iso_heap_t *other = make(job, quiet); // has a quiet life here
    Traveller traveller = {job, self == 0 ? make(job, large) : nullptr};
    const auto save = [&] {
        const uint64_t passed =
            images.save(traveller.heap != nullptr ? std::vector<iso_heap_t *>{other, traveller.heap}
                                                  : std::vector<iso_heap_t *>{other});
        job.barrier();
        return passed;
    };
    const auto write_it = [&] {
        if (traveller.heap != nullptr)
            write(traveller.heap);
    };
    // Of what was here all the while, and of what has come: what is not read of it.
    const auto expect = [&](uint64_t passed, bool both) {
        if (!images.can())
            return;
        EXPECT(passed + (1u << 20) > quiet + (both ? large : 0));
        EXPECT(passed < quiet + (1u << 20) || both);
    };

    EXPECT(save() == 0);
    traveller.move(); // away and back: put into pages that are protected here
    write_it();
    traveller.move();
    expect(save(), false);
    write_it(); // here
    expect(save(), self == 0);
    traveller.move(); // away, and nothing was written: saved where it has come to
    expect(save(), false);
    write_it(); // there
    traveller.move();
    traveller.move();
    expect(save(), false);
    write_it();
    expect(save(), self == 1);
    traveller.move(); // back for good
    expect(save(), false);
    if (traveller.heap != nullptr) { // another heap, where it was or elsewhere
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(traveller.heap));
        traveller.heap = make(job, large / 2);
    }
    expect(save(), false);
    traveller.move();
    write_it();
    expect(save(), false);
    if (traveller.heap != nullptr)
        EXPECT_STATUS(ISO_OK, iso_heap_destroy(traveller.heap));
    EXPECT_STATUS(ISO_OK, iso_heap_destroy(other));
}

} // namespace

int main()
{
    Job job;
    EXPECT(job.size() == 2);
    Images images(job);
    run(job, images);
    job.barrier();
    job.finish();
    images.check_all();
    if (!images.can())
        std::puts("this kernel does not tell what is written: all was read");
    return 0;
}
