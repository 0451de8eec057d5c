// Copies to memory that a peer reads: every byte of the range, and none beside it, whatever the way,
// the alignment and the length.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "transport/common/copy.h"
}

namespace {

constexpr size_t line = 64, page = 4096;
constexpr size_t longest = 33 * page; // eight blocks of four pages, and what is left of a ninth
constexpr size_t margin = 2 * page;

// Source and target as long as the longest copy, with a margin around, and a line to shift each within.
class Ground {
  public:
    Ground() : source_(room, 0), before_(room, 0)
    {
        std::mt19937_64 random(1);
        std::generate(source_.begin(), source_.end(),
                      [&] { return static_cast<unsigned char>(random()); });
        std::generate(before_.begin(), before_.end(),
                      [&] { return static_cast<unsigned char>(random()); });
        target_ = before_;
    }
    // Copies in each way that this processor has, says what is wrong, and makes the target what it was.
    std::string wrong_after(size_t to, size_t from, size_t len)
    {
        for (const bool lines : {false, true})
            if (const std::string wrong = wrong_after(lines, to, from, len); !wrong.empty())
                return wrong + (lines ? ", by lines" : ", by parts of lines");
        return {};
    }

  private:
    std::string wrong_after(bool lines, size_t to, size_t from, size_t len)
    {
        unsigned char *const at = aligned(target_) + to;
        const unsigned char *const source = aligned(source_) + from;
        if (!copy_to_peer_by(lines, at, source, len))
            return {};
        const size_t start = static_cast<size_t>(at - target_.data());
        const bool inside = memcmp(at, source, len) == 0;
        const bool outside =
            memcmp(target_.data(), before_.data(), start) == 0 &&
            memcmp(at + len, before_.data() + start + len, room - start - len) == 0;
        memcpy(at, before_.data() + start, len);
        if (inside && outside)
            return {};
        target_ = before_;
        return std::to_string(len) + " bytes from line + " + std::to_string(from) + " to line + " +
               std::to_string(to) + (inside ? ": bytes beside them" : ": other bytes");
    }

    static constexpr size_t room = longest + 2 * margin + line;
    static unsigned char *aligned(std::vector<unsigned char> &bytes)
    {
        const uintptr_t start = reinterpret_cast<uintptr_t>(bytes.data());
        return bytes.data() + (margin - start % line);
    }
    std::vector<unsigned char> source_, before_, target_;
};

} // namespace

TEST_CASE("a copy to a peer has every alignment of source and target")
{
    Ground ground;
    for (const size_t len :
         {size_t{0}, size_t{1}, page - 1, page, page + line - 1, 4 * page, 9 * page + 100})
        for (size_t to = 0; to < line; to++)
            for (size_t from = 0; from < line; from += to % 8 == 0 ? 1 : 7)
                REQUIRE(ground.wrong_after(to, from, len) == "");
}

TEST_CASE("a copy to a peer has every length around where its way changes")
{
    Ground ground;
    for (size_t pages = 0; pages <= longest / page; pages++)
        for (size_t more = 0; more < 2 * line + 2; more++) {
            const size_t len = pages * page + more;
            if (len < line + 1 || len - line > longest)
                continue;
            for (const size_t to : {size_t{0}, size_t{1}, line - 1})
                REQUIRE(ground.wrong_after(to, 0, len - line) == "");
        }
}
