// What the tests of images share: images saved, opened and restored in one call.
#ifndef ISO_TESTS_UNIT_IMAGE_HPP
#define ISO_TESTS_UNIT_IMAGE_HPP

#include "tests/unit/allocator.hpp"
#include "tests/unit/folder.hpp"
#include "tests/unit/support.hpp"
#include <fstream>
#include <isomalloc/checkpoint.h>

inline std::string contents_of(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const std::string &path, const std::string &bytes)
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

inline iso_status_t save(iso_job_t *job, const std::string &path,
                         const std::vector<iso_heap_t *> &heaps, const std::string &user = "",
                         const char *since = nullptr)
{
    iso_checkpoint_params_t params = {sizeof params, user.data(), user.size(), since, 0};
    return iso_checkpoint(job, path.c_str(), heaps.data(), static_cast<uint32_t>(heaps.size()),
                          &params);
}

// Opens the image and restores heap `number`.
inline iso_status_t restore(iso_job_t *job, const std::string &path, uint32_t number,
                            iso_heap_t **heap_p)
{
    Opened opened(path);
    return opened.status == ISO_OK ? iso_image_restore(job, opened.image, number, heap_p)
                                   : opened.status;
}

// In a child: a job as the environment says, or nullptr.
inline iso_job_t *start()
{
    iso_job_t *job = nullptr;
    iso_init(nullptr, &job);
    return job;
}

#endif
