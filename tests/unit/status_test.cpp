// iso_status_string and iso_version: what people are told.
#include <catch2/catch.hpp>
#include <isomalloc/isomalloc.h>
#include <set>
#include <string>

TEST_CASE("every status code has a text of its own", "[status]")
{
    std::set<std::string> texts;
    for (int code = ISO_ERR_CODE; code <= ISO_INPROGRESS; code++)
        texts.insert(iso_status_string(static_cast<iso_status_t>(code)));
    CHECK(texts.size() == ISO_INPROGRESS - ISO_ERR_CODE + 1);
    CHECK(texts.count("unknown status") == 0);
    CHECK(std::string(iso_status_string(ISO_ERR_REFUSED)) == "the target refused the heap");
}

TEST_CASE("a code that is no status has a text too", "[status]")
{
    CHECK(std::string(iso_status_string(static_cast<iso_status_t>(-999))) == "unknown status");
}

TEST_CASE("the version is told as a text and as numbers", "[status]")
{
    unsigned major = 99, minor = 99, patch = 99;
    const std::string text = iso_version(&major, &minor, &patch);
    CHECK(text ==
          std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch));
    CHECK(major == ISO_VERSION_MAJOR);
    CHECK(minor == ISO_VERSION_MINOR);
    CHECK(patch == ISO_VERSION_PATCH);
    CHECK(iso_version(nullptr, nullptr, nullptr) == text);
}
