// pup: every item, every kind, and what happens when the data end too soon or are not what was packed.
#include "tests/unit/pup.hpp"
#include "tests/unit/support.hpp"
#include <cmath>
#include <fcntl.h>
#include <functional>
#include <vector>

namespace {

// One item of every type, and arrays.
struct Everything {
    char c = 'c', cs[3] = {'a', 'b', 0};
    short s = -2, ss[3] = {1, 2, 3};
    int i = -3, is[5] = {5, 4, 3, 2, 1};
    long l = -4, ls[2] = {1L << 40, -1};
    unsigned char uc = 200, ucs[3] = {1, 2, 255};
    unsigned short us = 60000, uss[2] = {1, 2};
    unsigned ui = 4000000000u, uis[2] = {1, 2};
    unsigned long ul = ~0ul, uls[2] = {3, 4};
    float f = 1.5f, fs[2] = {2.5f, -0.0f};
    double d = 3.25, ds[3] = {1e300, 1e-300, 0};
    void *p = this, *ps[2] = {&c, nullptr};
    int64_t i8 = INT64_MIN, i8s[2] = {1, -1};
    size_t z = SIZE_MAX, zs[2] = {7, 8};
    char bytes[7] = {1, 2, 3, 4, 5, 6, 7};
};

void pup_everything(pup_er p, Everything &e)
{
    pup_char(p, &e.c), pup_chars(p, e.cs, 3);
    pup_short(p, &e.s), pup_shorts(p, e.ss, 3);
    pup_int(p, &e.i), pup_ints(p, e.is, 5);
    pup_long(p, &e.l), pup_longs(p, e.ls, 2);
    pup_uchar(p, &e.uc), pup_uchars(p, e.ucs, 3);
    pup_ushort(p, &e.us), pup_ushorts(p, e.uss, 2);
    pup_uint(p, &e.ui), pup_uints(p, e.uis, 2);
    pup_ulong(p, &e.ul), pup_ulongs(p, e.uls, 2);
    pup_comment(p, "now what is not whole");
    pup_fmt_sync_begin_array(p);
    pup_float(p, &e.f), pup_floats(p, e.fs, 2);
    pup_fmt_sync_item(p);
    pup_double(p, &e.d), pup_doubles(p, e.ds, 3);
    pup_fmt_sync_end_array(p);
    pup_fmt_sync_begin_object(p);
    pup_pointer(p, &e.p), pup_pointers(p, e.ps, 2);
    pup_fmt_sync_end_object(p);
    pup_int8(p, &e.i8), pup_int8s(p, e.i8s, 2);
    pup_size_t(p, &e.z), pup_size_ts(p, e.zs, 2);
    pup_syncComment(p, 77, "bytes");
    pup_bytes(p, e.bytes, sizeof e.bytes);
}
constexpr size_t everything_size = 4 + 8 + 24 + 24 + 4 + 6 + 12 + 24 + 12 + 32 + 24 + 24 + 24 + 7;

// In one memory: a struct with arrays of its own, as Converse's manual has it.
struct Bar {
    int count = 0;
    double *array = nullptr;
};

void pup_bar(pup_er p, Bar &bar)
{
    pup_int(p, &bar.count);
    const auto count = static_cast<size_t>(bar.count);
    if (pup_isUnpacking(p))
        bar.array = static_cast<double *>(malloc(count * sizeof(double) + 1));
    pup_doubles(p, bar.array, count);
    if (pup_isDeleting(p)) {
        free(bar.array);
        bar.array = nullptr;
    }
}

} // namespace

TEST_CASE("pup: a sizer counts what packing takes, of every type", "[pup]")
{
    Everything e;
    pup_er p = pup_new_sizer();
    REQUIRE(pup_isSizing(p) == 1);
    REQUIRE(pup_isPacking(p) == 0);
    REQUIRE(pup_isUnpacking(p) == 0);
    REQUIRE(pup_isDeleting(p) == 0);
    REQUIRE(std::string(pup_typeString(p)) == "sizer");
    pup_everything(p, e);
    REQUIRE(pup_size(p) == everything_size);
    pup_destroy(p);
}

TEST_CASE("pup: every type comes out of every kind as it went in", "[pup]")
{
    const Everything original;
    for (auto &[name, place] : every_place(everything_size)) {
        INFO(name);
        Everything e = original;
        pup_er p = place->to();
        REQUIRE(pup_isPacking(p) == 1);
        pup_everything(p, e);
        REQUIRE(iso_pup_flush(p) == ISO_OK);
        REQUIRE(pup_size(p) == everything_size);
        place->end(p);
        Everything back;
        std::memset(static_cast<void *>(&back), 0x5a, sizeof back);
        p = place->from();
        REQUIRE(pup_isUnpacking(p) == 1);
        pup_everything(p, back);
        REQUIRE(iso_pup_status(p) == ISO_OK);
        REQUIRE(pup_size(p) == everything_size);
        place->end(p);
        REQUIRE(back.c == 'c');
        REQUIRE(std::string(back.cs) == "ab");
        REQUIRE(back.s == -2);
        REQUIRE(back.is[4] == 1);
        REQUIRE(back.ls[0] == 1L << 40);
        REQUIRE(back.ucs[2] == 255);
        REQUIRE(back.us == 60000);
        REQUIRE(back.ui == 4000000000u);
        REQUIRE(back.ul == ~0ul);
        REQUIRE(std::signbit(back.fs[1]));
        REQUIRE(back.ds[1] == 1e-300);
        REQUIRE(back.p == original.p);
        REQUIRE(back.ps[0] == original.ps[0]);
        REQUIRE(back.i8 == INT64_MIN);
        REQUIRE(back.z == SIZE_MAX);
        REQUIRE(std::memcmp(back.bytes, original.bytes, sizeof back.bytes) == 0);
    }
}

TEST_CASE("pup: on the network the most significant byte of every item is the first", "[pup]")
{
    unsigned char bytes[40] = {};
    short s[2] = {0x0102, -2};
    unsigned i = 0x01020304u;
    long l = 0x0102030405060708l;
    double d = 1.0;
    char text[3] = {'a', 'b', 'c'};
    const auto all = [&](pup_er p) {
        pup_shorts(p, s, 2), pup_uint(p, &i), pup_long(p, &l), pup_double(p, &d);
        pup_chars(p, text, 3);
        const size_t size = pup_size(p);
        pup_destroy(p);
        return size;
    };
    REQUIRE(all(pup_new_network_sizer()) == 27);
    REQUIRE(all(pup_new_network_pack(bytes)) == 27);
    const unsigned char expected[28] = {1, 2, 0xff, 0xfe, 1, 2, 3, 4, 1, 2, 3,   4,   5,  6,
                                        7, 8, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c'};
    REQUIRE(std::memcmp(bytes, expected, sizeof expected) == 0);
    pup_er below = pup_new_network_pack(bytes), p = pup_new_fmt(below); // labels, too
    pup_uint(p, &i);
    pup_destroy(p);
    pup_destroy(below);
    const unsigned char labelled[12] = {0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4};
    REQUIRE(std::memcmp(bytes + 8, labelled, sizeof labelled) == 0);
}

TEST_CASE("pup: a size in two bytes is right to half a per cent", "[pup]")
{
    for (const size_t size : {size_t(0), size_t(1), size_t(1000), size_t(1023)})
        REQUIRE(pup_decodeSize(pup_encodeSize(size)) == size);
    for (size_t size = 1; size < SIZE_MAX / 3 * 2; size += size / 2 + size / 7 + 1) {
        const size_t back = pup_decodeSize(pup_encodeSize(size));
        INFO(size);
        REQUIRE(back <= size);
        REQUIRE(size - back <= size / 200);
    }
    REQUIRE(SIZE_MAX - pup_decodeSize(pup_encodeSize(SIZE_MAX)) <= SIZE_MAX / 200);
}

TEST_CASE("pup: a struct with arrays of its own, packed and deleted", "[pup]")
{
    for (auto &[name, place] : every_place(4 + 1000 * sizeof(double))) {
        INFO(name);
        Bar bar;
        bar.count = 1000;
        bar.array = static_cast<double *>(malloc(1000 * sizeof(double)));
        for (int i = 0; i < 1000; i++)
            bar.array[i] = i * 0.5;
        pup_er p = place->to();
        REQUIRE(iso_pup_set_use(p, ISO_PUP_DELETING | ISO_PUP_MIGRATION) == ISO_OK);
        REQUIRE(pup_isMigration(p) == 1);
        REQUIRE(pup_isCheckpoint(p) == 0);
        pup_bar(p, bar);
        REQUIRE(iso_pup_flush(p) == ISO_OK);
        place->end(p);
        REQUIRE(bar.array == nullptr);
        bar.count = 0;
        p = place->from();
        pup_bar(p, bar);
        REQUIRE(iso_pup_status(p) == ISO_OK);
        place->end(p);
        REQUIRE(bar.count == 1000);
        REQUIRE(bar.array[999] == 499.5);
        free(bar.array);
    }
}

TEST_CASE("pup: memory that ends refuses what is beyond, and unpacks zeros from there on", "[pup]")
{
    Everything e;
    std::vector<char> bytes(everything_size);
    for (size_t size = 0; size < everything_size; size++) {
        const auto result = in_child([&] {
            pup_er p = iso_pup_new_to_memory(bytes.data(), size);
            pup_everything(p, e);
            if (iso_pup_status(p) != ISO_ERR_LIMIT || pup_size(p) > size)
                return 1;
            pup_destroy(p);
            Everything back;
            p = iso_pup_new_from_memory(bytes.data(), size);
            pup_everything(p, back);
            if (iso_pup_status(p) != ISO_ERR_INVALID || back.bytes[6] != 0 || back.bytes[0] != 0)
                return 2;
            pup_destroy(p);
            return 0;
        });
        REQUIRE(result.exited_with(0));
        REQUIRE(line_count(result.stderr_text) == 2); // one for each, not one for each item
        size += 16;                                   // not every size: each is a process
    }
}

TEST_CASE("pup: a file that ends too soon is said, and what was lost is zero", "[pup]")
{
    Everything e;
    for (const bool stdio : {false, true}) {
        const auto result = in_child([&] {
            FILE *file = tmpfile();
            pup_er p = iso_pup_new_to_file(file);
            pup_everything(p, e);
            if (iso_pup_flush(p) != ISO_OK)
                return 1;
            pup_destroy(p);
            if (ftruncate(fileno(file), everything_size - 1) != 0 || fseek(file, 0, SEEK_SET) != 0)
                return 2;
            p = stdio ? iso_pup_new_from_file(file) : iso_pup_new_from_fd(fileno(file));
            Everything back;
            pup_everything(p, back);
            if (iso_pup_status(p) != ISO_ERR_INVALID || back.z != SIZE_MAX || back.bytes[0] != 0)
                return 3;
            pup_destroy(p);
            return 0;
        });
        REQUIRE(result.exited_with(0));
        REQUIRE(contains(result.stderr_text, "the file ends 1 bytes too soon"));
    }
}

TEST_CASE("pup: a device that is full is said by flush", "[pup]")
{
    const auto result = in_child([] {
        const int fd = open("/dev/full", O_WRONLY);
        int value = 1;
        pup_er p = iso_pup_new_to_fd(fd);
        pup_int(p, &value);
        if (iso_pup_status(p) != ISO_OK) // gathered, not written yet
            return 1;
        if (iso_pup_flush(p) != ISO_ERR_SYSTEM)
            return 2;
        pup_destroy(p);
        return 0;
    });
    REQUIRE(result.exited_with(0));
    REQUIRE(contains(result.stderr_text, "cannot be written: No space left on device"));
}

TEST_CASE("pup: what is read ahead of a file is given back, and of a pipe nothing is read ahead",
          "[pup]")
{
    File file;
    int value = 0, ends[2];
    REQUIRE(write(file.fd, "abcdefgh", 8) == 8);
    file.rewind();
    pup_er p = iso_pup_new_from_fd(file.fd);
    pup_int(p, &value);
    pup_destroy(p);
    REQUIRE(file.at() == 4);
    REQUIRE(pipe(ends) == 0);
    REQUIRE(write(ends[1], "abcdefgh", 8) == 8);
    p = iso_pup_new_from_fd(ends[0]);
    pup_int(p, &value);
    pup_destroy(p);
    char rest[5] = "";
    REQUIRE(read(ends[0], rest, 4) == 4);
    REQUIRE(std::string(rest) == "efgh");
    close(ends[0]);
    close(ends[1]);
}

TEST_CASE("pup: a checksum sees every byte, and the order", "[pup]")
{
    const auto digest = [](Everything &e) {
        pup_er p = iso_pup_new_checksum();
        REQUIRE(pup_isPacking(p) == 1);
        REQUIRE(iso_pup_set_use(p, ISO_PUP_DELETING) == ISO_ERR_INVALID); // it keeps nothing
        pup_everything(p, e);
        const uint64_t value = iso_pup_digest(p);
        pup_destroy(p);
        return value;
    };
    Everything e;
    const uint64_t before = digest(e);
    REQUIRE(digest(e) == before);
    e.bytes[6] ^= 1;
    REQUIRE(digest(e) != before);
    e.bytes[6] ^= 1;
    std::swap(e.is[0], e.is[1]);
    REQUIRE(digest(e) != before);
    pup_er p = pup_new_sizer();
    REQUIRE(iso_pup_digest(p) == 0);
    pup_destroy(p);
}

TEST_CASE("pup: fmt finds where a routine unpacks other than it packed", "[pup]")
{
    struct {
        const char *what;
        std::function<void(pup_er)> routine;
        const char *said;
    } cases[] = {
        {"another type",
         [](pup_er p) {
             float f = 0;
             pup_float(p, &f);
         },
         "1 float (0) where 1 int (0) were"},
        {"another count",
         [](pup_er p) {
             int i[2];
             pup_ints(p, i, 2);
         },
         "2 int (0) where 1 int (0) were"},
        {"a mark too many", [](pup_er p) { pup_syncComment(p, 5, "five"); },
         "4 mark (0x5) where 1 int"},
    };
    for (auto &[what, routine, said] : cases) {
        INFO(what);
        const auto result = in_child([routine = routine] {
            char bytes[256];
            int value = 4, back[2] = {1, 1};
            pup_er below = iso_pup_new_to_memory(bytes, sizeof bytes), p = pup_new_fmt(below);
            pup_int(p, &value);
            pup_int(p, &value);
            pup_destroy(p);
            pup_destroy(below);
            below = iso_pup_new_from_memory(bytes, sizeof bytes);
            p = pup_new_fmt(below);
            routine(p);
            pup_ints(p, back, 2);
            const bool found = iso_pup_status(p) == ISO_ERR_INVALID && back[0] == 0 && back[1] == 0;
            pup_destroy(p);
            pup_destroy(below);
            return found ? 0 : 1;
        });
        REQUIRE(result.exited_with(0));
        REQUIRE(contains(result.stderr_text, said));
    }
}

TEST_CASE("pup: what cannot be is refused with a line: use, and kinds of one's own", "[pup]")
{
    const auto result = in_child([] {
        int value = 0;
        pup_er p = pup_new_sizer();
        if (iso_pup_set_use(p, ISO_PUP_DELETING) != ISO_ERR_INVALID ||
            iso_pup_set_use(p, 0x100) != ISO_ERR_INVALID ||
            iso_pup_set_use(p, ISO_PUP_CHECKPOINT | ISO_PUP_USERLEVEL) != ISO_OK ||
            !pup_isCheckpoint(p) || !pup_isUserlevel(p) || pup_isRestarting(p))
            return 1;
        pup_int(p, &value);
        if (iso_pup_set_use(p, 0) != ISO_ERR_INVALID)
            return 2;
        iso_pup_fail(p, ISO_ERR_VERSION);
        iso_pup_fail(p, ISO_ERR_BUSY); // the first stays
        pup_int(p, &value);
        if (iso_pup_status(p) != ISO_ERR_VERSION || pup_size(p) != sizeof value)
            return 3;
        pup_destroy(p);
        pup_destroy(nullptr);
        iso_pup_kind_t kind = {};
        kind.struct_size = sizeof kind;
        if (iso_pup_new(&kind, nullptr) != nullptr)
            return 4;
        kind.items = OwnKind::push;
        kind.struct_size = 8;
        return iso_pup_new(&kind, nullptr) == nullptr ? 0 : 5;
    });
    REQUIRE(result.exited_with(0));
    REQUIRE(contains(result.stderr_text, "0x1 says DELETING"));
    REQUIRE(contains(result.stderr_text, "0x100 has unknown bits"));
    REQUIRE(contains(result.stderr_text, "0 comes after the first item"));
    REQUIRE(contains(result.stderr_text, "no items"));
    REQUIRE(contains(result.stderr_text, "the kind has 8 bytes"));
}
