// What can be packed to and unpacked from, again and again: each kind of pup_er with what it works on.
#ifndef ISO_TESTS_UNIT_PUP_HPP
#define ISO_TESTS_UNIT_PUP_HPP

#include <catch2/catch.hpp>
#include <cstring>
#include <isomalloc/pup.h>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

// A file without a name.
class File {
  public:
    File() : fd(memfd_create("pup-test", MFD_CLOEXEC))
    {
        REQUIRE(fd >= 0);
    }
    ~File()
    {
        ::close(fd);
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    void rewind() const
    {
        REQUIRE(lseek(fd, 0, SEEK_SET) == 0);
    }
    [[nodiscard]] off_t at() const
    {
        return lseek(fd, 0, SEEK_CUR);
    }
    int fd;
};

// A place that can be packed to and unpacked from, again and again.
struct Place {
    virtual ~Place() = default;
    virtual pup_er to() = 0;
    virtual pup_er from() = 0;
    virtual void end(pup_er p)
    {
        pup_destroy(p);
    }
};

struct InMemory : Place {
    std::vector<char> bytes;
    explicit InMemory(size_t size) : bytes(size)
    {
    }
    pup_er to() override
    {
        return iso_pup_new_to_memory(bytes.data(), bytes.size());
    }
    pup_er from() override
    {
        return iso_pup_new_from_memory(bytes.data(), bytes.size());
    }
};

struct InMemoryOfConverse : InMemory {
    using InMemory::InMemory;
    pup_er to() override
    {
        return pup_new_toMem(bytes.data());
    }
    pup_er from() override
    {
        return pup_new_fromMem(bytes.data());
    }
};

struct InFormOfNetwork : InMemory {
    using InMemory::InMemory;
    pup_er to() override
    {
        return pup_new_network_pack(bytes.data());
    }
    pup_er from() override
    {
        return pup_new_network_unpack(bytes.data());
    }
};

struct ByDescriptor : Place {
    File file;
    pup_er to() override
    {
        file.rewind();
        return iso_pup_new_to_fd(file.fd);
    }
    pup_er from() override
    {
        file.rewind();
        return iso_pup_new_from_fd(file.fd);
    }
};

struct ByStdio : Place {
    FILE *file = tmpfile();
    ~ByStdio() override
    {
        fclose(file);
    }
    pup_er to() override
    {
        rewind(file);
        return iso_pup_new_to_file(file);
    }
    pup_er from() override
    {
        rewind(file);
        return iso_pup_new_from_file(file);
    }
};

struct Formatted : ByDescriptor {
    pup_er below = nullptr;
    pup_er to() override
    {
        below = ByDescriptor::to();
        return pup_new_fmt(below);
    }
    pup_er from() override
    {
        below = ByDescriptor::from();
        return pup_new_fmt(below);
    }
    void end(pup_er p) override
    {
        pup_destroy(p);
        pup_destroy(below);
    }
};

// A kind of one's own: a queue of bytes.
struct OwnKind : Place {
    std::vector<char> queue;
    size_t at = 0;
    static iso_status_t push(void *context, void *data, size_t count, size_t size, iso_pup_type_t)
    {
        auto *self = static_cast<OwnKind *>(context);
        const auto *bytes = static_cast<char *>(data);
        self->queue.insert(self->queue.end(), bytes, bytes + count * size);
        return ISO_OK;
    }
    static iso_status_t pop(void *context, void *data, size_t count, size_t size, iso_pup_type_t)
    {
        auto *self = static_cast<OwnKind *>(context);
        if (count * size > self->queue.size() - self->at)
            return ISO_ERR_INVALID;
        std::memcpy(data, &self->queue[self->at], count * size);
        self->at += count * size;
        return ISO_OK;
    }
    pup_er to() override
    {
        static const iso_pup_kind_t kind = {sizeof kind, "queue", ISO_PUP_PACKING, push,
                                            nullptr,     nullptr, nullptr};
        queue.clear();
        return iso_pup_new(&kind, this);
    }
    pup_er from() override
    {
        static const iso_pup_kind_t kind = {sizeof kind, "queue", ISO_PUP_UNPACKING, pop, nullptr,
                                            nullptr,     nullptr};
        at = 0;
        return iso_pup_new(&kind, this);
    }
};

struct Named {
    std::string name;
    std::unique_ptr<Place> place;
};

inline std::vector<Named> every_place(size_t room)
{
    std::vector<Named> places;
    places.push_back({"memory", std::make_unique<InMemory>(room)});
    places.push_back({"memory, as Converse has it", std::make_unique<InMemoryOfConverse>(room)});
    places.push_back({"memory, as on the network", std::make_unique<InFormOfNetwork>(room)});
    places.push_back({"descriptor", std::make_unique<ByDescriptor>()});
    places.push_back({"stdio", std::make_unique<ByStdio>()});
    places.push_back({"fmt", std::make_unique<Formatted>()});
    places.push_back({"own", std::make_unique<OwnKind>()});
    return places;
}

#endif
