// The settings: defaults, what the environment says, validation, structs of other versions.
#include "core/params.h"
#include "tests/unit/support.hpp"
#include <clocale>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

static const iso_logger_t quiet = {ISO_LOG_ERROR, 0};

// The environment without any ISO_* setting, whatever the tests were started with.
class CleanSettings {
  public:
    CleanSettings()
    {
        size_t count;
        const iso_setting_t *rows = iso_settings(&count);
        for (size_t i = 0; i < count; i++)
            guards_.push_back(
                std::make_unique<ScopedEnv>(("ISO_" + std::string(rows[i].name)).c_str(), nullptr));
    }

  private:
    std::vector<std::unique_ptr<ScopedEnv>> guards_;
};

static iso_params_t defaults()
{
    iso_params_t params;
    REQUIRE(iso_params_init(&params) == ISO_OK);
    return params;
}

// What iso_params_init writes to standard error, and whether it succeeds, with ISO_<name> = value.
static ChildResult init_with(const char *name, const char *value)
{
    ScopedEnv env(name, value);
    return in_child([] {
        iso_params_t params;
        return iso_params_init(&params) == ISO_OK ? 0 : 1;
    });
}

TEST_CASE("without an environment the defaults hold", "[params]")
{
    CleanSettings clean;
    const iso_params_t params = defaults();
    CHECK(params.struct_size == sizeof params);
    CHECK(params.space_size == 0);
    CHECK(params.space_base == 0);
    CHECK(params.backing == ISO_BACKING_AUTO);
    CHECK(params.node_size == 0);
    CHECK(std::string(params.transport) == "auto");
    CHECK(std::string(params.bootstrap) == "auto");
    CHECK(std::string(params.module_path).empty());
    CHECK(params.retain == 256u << 20);
    CHECK(params.timeout == 10.0);
    CHECK(params.log_level == ISO_LOG_WARN);
    CHECK(params.thread_level == ISO_THREAD_MULTIPLE);
    CHECK_FALSE(params.core_dump);
    CHECK_FALSE(params.progress_thread);
    CHECK(params.dump_signal == 0);
    CHECK(params.huge_pages == ISO_HUGE_PAGES_NONE);
    CHECK(params.registration == ISO_REGISTER_AUTO);
    CHECK(params.pin_limit == 0);
    CHECK(std::string(params.images).empty());
    CHECK_FALSE(params.map_images);
    CHECK_FALSE(params.mixed_images);
    CHECK_FALSE(params.track_writes);
    CHECK(params.inline_max == 4096);
    CHECK(params.image_rank == nullptr);
    CHECK(params.caller_bootstrap == nullptr);
    CHECK(params.arrival == nullptr);
    CHECK(params.arrival_arg == nullptr);
    CHECK(params.admit == nullptr);
    CHECK(params.admit_arg == nullptr);
}

TEST_CASE("the list of settings has a row for every field, with help", "[params]")
{
    size_t count;
    const iso_setting_t *rows = iso_settings(&count);
    CHECK(count == 28);
    for (size_t i = 0; i < count; i++) {
        INFO(rows[i].name);
        CHECK(strlen(rows[i].help) > 10);
        CHECK(rows[i].default_value != nullptr);
        CHECK(strchr(rows[i].help, '\n') == nullptr);
    }
}

TEST_CASE("the environment sets every setting", "[params]")
{
    CleanSettings clean;
    ScopedEnv e1("ISO_SPACE_SIZE", "2T"), e2("ISO_SPACE_BASE", "0x200000000000"),
        e3("ISO_BACKING", "private"), e4("ISO_NODE_SIZE", "3"), e5("ISO_TRANSPORT", "loopback"),
        e6("ISO_BOOTSTRAP", "local"), e7("ISO_MODULE_PATH", "/a:/b"), e8("ISO_RETAIN", "0"),
        e9("ISO_TIMEOUT", "0.25"), e10("ISO_LOG_LEVEL", "error"),
        e11("ISO_THREAD_LEVEL", "serialized"), e12("ISO_CORE_DUMP", "yes"),
        e13("ISO_PROGRESS_THREAD", "y"), e14("ISO_DUMP_SIGNAL", "12"),
        e15("ISO_HUGE_PAGES", "auto"), e16("ISO_REGISTER", "window"), e17("ISO_PIN_LIMIT", "64M"),
        e18("ISO_IMAGES", "a:b"), e19("ISO_MAP_IMAGES", "y"), e20("ISO_MIXED_IMAGES", "y"),
        e21("ISO_TRACK_WRITES", "y"), e22("ISO_INLINE_MAX", "1K");
    const iso_params_t params = defaults();
    CHECK(params.space_size == uint64_t(2) << 40);
    CHECK(params.space_base == 0x200000000000);
    CHECK(params.backing == ISO_BACKING_PRIVATE);
    CHECK(params.node_size == 3);
    CHECK(std::string(params.transport) == "loopback");
    CHECK(std::string(params.bootstrap) == "local");
    CHECK(std::string(params.module_path) == "/a:/b");
    CHECK(params.retain == 0);
    CHECK(params.timeout == 0.25);
    CHECK(params.log_level == ISO_LOG_ERROR);
    CHECK(params.thread_level == ISO_THREAD_SERIALIZED);
    CHECK(params.core_dump);
    CHECK(params.progress_thread);
    CHECK(params.dump_signal == 12);
    CHECK(params.huge_pages == ISO_HUGE_PAGES_AUTO);
    CHECK(params.registration == ISO_REGISTER_WINDOW);
    CHECK(params.pin_limit == 64u << 20);
    CHECK(std::string(params.images) == "a:b");
    CHECK(params.map_images);
    CHECK(params.mixed_images);
    CHECK(params.track_writes);
    CHECK(params.inline_max == 1024);
}

TEST_CASE("sizes take binary suffixes and hexadecimal", "[params]")
{
    CleanSettings clean;
    const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {{"0", 0},
                {"1", 1},
                {"4K", 4096},
                {"4k", 4096},
                {"3M", 3u << 20},
                {"2G", uint64_t(2) << 30},
                {"1T", uint64_t(1) << 40},
                {"7p", uint64_t(7) << 50},
                {"0x10", 16},
                {"0XfF", 255},
                {"0x2K", 2048},
                {"010", 10},
                {"18446744073709551615", UINT64_MAX},
                {"16383P", uint64_t(16383) << 50}};
    for (const auto &row : rows) {
        INFO(row.text);
        ScopedEnv env("ISO_RETAIN", row.text);
        CHECK(defaults().retain == row.bytes);
    }
}

TEST_CASE("booleans have many names", "[params]")
{
    CleanSettings clean;
    for (const char *text : {"y", "Y", "1", "yes", "on", "ON"}) {
        INFO(text);
        ScopedEnv env("ISO_CORE_DUMP", text);
        CHECK(defaults().core_dump);
    }
    for (const char *text : {"n", "0", "no", "off", "No"}) {
        INFO(text);
        ScopedEnv env("ISO_CORE_DUMP", text);
        CHECK_FALSE(defaults().core_dump);
    }
}

TEST_CASE("a value that cannot be read is refused in one line that names it", "[params]")
{
    CleanSettings clean;
    const struct {
        const char *name, *value, *remedy;
    } rows[] = {{"ISO_RETAIN", "lots", "a number of bytes"},
                {"ISO_RETAIN", "", "a number of bytes"},
                {"ISO_RETAIN", "-1", "a number of bytes"},
                {"ISO_RETAIN", " 1", "a number of bytes"},
                {"ISO_RETAIN", "1 ", "a number of bytes"},
                {"ISO_RETAIN", "1KK", "a number of bytes"},
                {"ISO_RETAIN", "1E", "a number of bytes"},
                {"ISO_RETAIN", "0x", "a number of bytes"},
                {"ISO_RETAIN", "K", "a number of bytes"},
                {"ISO_RETAIN", "18446744073709551616", "a number of bytes"},
                {"ISO_RETAIN", "16384P", "a number of bytes"},
                {"ISO_SPACE_SIZE", "3M", "multiple of 2M"},
                {"ISO_SPACE_BASE", "4096", "multiple of 2M"},
                {"ISO_NODE_SIZE", "4294967296", "0 to 4294967295"},
                {"ISO_TIMEOUT", "0", "more than 0"},
                {"ISO_TIMEOUT", "-3", "more than 0"},
                {"ISO_TIMEOUT", "nan", "more than 0"},
                {"ISO_TIMEOUT", "inf", "more than 0"},
                {"ISO_TIMEOUT", ".", "more than 0"},
                {"ISO_TIMEOUT", "1.2.3", "more than 0"},
                {"ISO_TIMEOUT", "0,5", "more than 0"},
                {"ISO_BACKING", "disk", "auto, shared, private, anon"},
                {"ISO_HUGE_PAGES", "y", "auto, n"},
                {"ISO_REGISTER", "all", "auto, space, odp, window"},
                {"ISO_LOG_LEVEL", "loud", "error, warn, info, debug"},
                {"ISO_THREAD_LEVEL", "many", "single, serialized, multiple"},
                {"ISO_CORE_DUMP", "maybe", "y, yes, on"},
                {"ISO_TRANSPORT", "../evil", "a module's name"},
                {"ISO_TRANSPORT", "", "a module's name"}};
    for (const auto &row : rows) {
        INFO(row.name << "=" << row.value);
        const ChildResult child = init_with(row.name, row.value);
        INFO(child.stderr_text);
        CHECK(child.exited_with(1));
        CHECK(line_count(child.stderr_text) == 1);
        CHECK(contains(child.stderr_text,
                       std::string(row.name) + "='" + row.value + "' cannot be used"));
        CHECK(contains(child.stderr_text, row.remedy));
    }
}

TEST_CASE("the struct is untouched when a value cannot be read", "[params]")
{
    CleanSettings clean;
    ScopedEnv env("ISO_TIMEOUT", "never");
    iso_params_t params;
    memset(&params, 0x5a, sizeof params);
    const iso_params_t before = params;
    CHECK(iso_params_init(&params) == ISO_ERR_INVALID);
    CHECK(memcmp(&params, &before, sizeof params) == 0);
}

TEST_CASE("a decimal point is a point in every locale", "[params]")
{
    CleanSettings clean;
    ScopedEnv env("ISO_TIMEOUT", "2.5");
    const std::string old = setlocale(LC_NUMERIC, nullptr);
    for (const char *locale : {"de_DE.UTF-8", "C"}) { // the first where it is installed
        setlocale(LC_NUMERIC, locale);
        CHECK(defaults().timeout == 2.5);
    }
    setlocale(LC_NUMERIC, old.c_str());
}

TEST_CASE("(run by the next test) params are initialised three times", "[.init-thrice]")
{
    for (int i = 0; i < 3; i++)
        CHECK(defaults().timeout == 10);
}

TEST_CASE("an unknown ISO_ name is warned of once, with the nearest known one", "[params]")
{
    CleanSettings clean;
    ScopedEnv typo("ISO_TIMEOUTS", "3"), odd("ISO_QQQQQQQQ", "x"), tests("ISO_TEST_SEED", "1"),
        hook("ISO_TEST_ATT", "1"), launcher("ISO_LOCAL_RANK", "0"), job("ISO_JOB_ID", "7");
    const ChildResult child = in_child([] { // a new process image: this one may have warned before
        execl("/proc/self/exe", "unit_tests", "[.init-thrice]", "-o", "/dev/null", nullptr);
        return 99;
    });
    INFO(child.stderr_text);
    CHECK(child.exited_with(0));
    CHECK(line_count(child.stderr_text) == 3);
    CHECK(contains(child.stderr_text, "ISO_TEST_ATT is no setting: did you mean ISO_TEST_AT?"));
    CHECK(contains(child.stderr_text, "ISO_TIMEOUTS is no setting: did you mean ISO_TIMEOUT?"));
    CHECK(contains(child.stderr_text, "ISO_QQQQQQQQ is no setting: `iso_info -c` lists them"));
}

TEST_CASE("an older program's shorter struct is filled as far as it goes", "[params]")
{
    CleanSettings clean;
    iso_params_t params;
    memset(&params, 0x5a, sizeof params);
    const size_t old_size = offsetof(iso_params_t, retain);
    REQUIRE(iso_params_init_sized(&params, old_size) == ISO_OK);
    CHECK(params.struct_size == old_size);
    CHECK(std::string(params.transport) == "auto");
    const unsigned char *tail = reinterpret_cast<const unsigned char *>(&params) + old_size;
    CHECK(std::all_of(tail, tail + sizeof params - old_size,
                      [](unsigned char c) { return c == 0x5a; }));
}

TEST_CASE("a newer program's longer struct is zero beyond what is known", "[params]")
{
    CleanSettings clean;
    struct {
        iso_params_t known;
        unsigned char rest[64];
    } newer;
    memset(&newer, 0x5a, sizeof newer);
    REQUIRE(iso_params_init_sized(&newer.known, sizeof newer) == ISO_OK);
    CHECK(newer.known.struct_size == sizeof newer);
    CHECK(newer.known.timeout == 10);
    CHECK(std::all_of(newer.rest, newer.rest + sizeof newer.rest,
                      [](unsigned char c) { return c == 0; }));
}

TEST_CASE("no struct at all is refused", "[params]")
{
    iso_params_t params;
    CHECK(iso_params_init_sized(nullptr, sizeof params) == ISO_ERR_INVALID);
    CHECK(iso_params_init_sized(&params, 0) == ISO_ERR_INVALID);
}

TEST_CASE("import completes what a program gives", "[params]")
{
    CleanSettings clean;
    iso_params_t imported;

    SECTION("nothing: defaults and environment")
    {
        ScopedEnv env("ISO_TIMEOUT", "3");
        REQUIRE(iso_params_import(&quiet, nullptr, &imported) == ISO_OK);
        CHECK(imported.timeout == 3);
        CHECK(imported.struct_size == sizeof imported);
    }
    SECTION("a whole struct: its values win over the environment's")
    {
        iso_params_t params = defaults();
        params.timeout = 4;
        ScopedEnv env("ISO_TIMEOUT", "3");
        REQUIRE(iso_params_import(&quiet, &params, &imported) == ISO_OK);
        CHECK(imported.timeout == 4);
    }
    SECTION("a shorter struct: the environment fills in the rest")
    {
        iso_params_t params;
        memset(&params, 0x5a, sizeof params);
        ScopedEnv env("ISO_TIMEOUT", "3");
        REQUIRE(iso_params_init_sized(&params, offsetof(iso_params_t, retain)) == ISO_OK);
        params.node_size = 5;
        REQUIRE(iso_params_import(&quiet, &params, &imported) == ISO_OK);
        CHECK(imported.node_size == 5);
        CHECK(imported.timeout == 3);
        CHECK(imported.retain == 256u << 20);
        CHECK(imported.struct_size == sizeof imported);
    }
    SECTION("NULL strings: their defaults")
    {
        iso_params_t params = defaults();
        params.transport = params.bootstrap = params.module_path = nullptr;
        REQUIRE(iso_params_import(&quiet, &params, &imported) == ISO_OK);
        CHECK(std::string(imported.transport) == "auto");
        CHECK(std::string(imported.bootstrap) == "auto");
        CHECK(std::string(imported.module_path).empty());
    }
    SECTION("a struct that was never initialised is refused")
    {
        iso_params_t params = {};
        CHECK(iso_params_import(&quiet, &params, &imported) == ISO_ERR_INVALID);
    }
    SECTION("an invalid value is refused")
    {
        iso_params_t params = defaults();
        params.timeout = -1;
        CHECK(iso_params_import(&quiet, &params, &imported) == ISO_ERR_INVALID);
    }
}

TEST_CASE("validation finds what a program assigned wrongly", "[params]")
{
    CleanSettings clean;
    const struct {
        const char *name;
        void (*spoil)(iso_params_t &params);
    } rows[] = {
        {"ISO_SPACE_SIZE", [](iso_params_t &p) { p.space_size = 4096; }},
        {"ISO_SPACE_SIZE", [](iso_params_t &p) { p.space_size = ISO_SLOT_SIZE + 1; }},
        {"ISO_SPACE_BASE", [](iso_params_t &p) { p.space_base = 4096; }},
        {"ISO_SPACE_BASE",
         [](iso_params_t &p) {
             p.space_base = UINT64_MAX - ISO_SLOT_SIZE + 1;
             p.space_size = 2 * ISO_SLOT_SIZE;
         }},
        {"ISO_BACKING", [](iso_params_t &p) { p.backing = static_cast<iso_backing_t>(4); }},
        {"ISO_HUGE_PAGES",
         [](iso_params_t &p) { p.huge_pages = static_cast<iso_huge_pages_t>(2); }},
        {"ISO_REGISTER",
         [](iso_params_t &p) { p.registration = static_cast<iso_registration_t>(4); }},
        {"ISO_LOG_LEVEL", [](iso_params_t &p) { p.log_level = static_cast<iso_log_level_t>(-1); }},
        {"ISO_THREAD_LEVEL",
         [](iso_params_t &p) { p.thread_level = static_cast<iso_thread_level_t>(3); }},
        {"ISO_TIMEOUT", [](iso_params_t &p) { p.timeout = 0; }},
        {"ISO_TIMEOUT", [](iso_params_t &p) { p.timeout = -1; }},
        {"ISO_TIMEOUT", [](iso_params_t &p) { p.timeout = NAN; }},
        {"ISO_TIMEOUT", [](iso_params_t &p) { p.timeout = INFINITY; }},
        {"ISO_TRANSPORT", [](iso_params_t &p) { p.transport = "a/b"; }},
        {"ISO_BOOTSTRAP", [](iso_params_t &p) { p.bootstrap = ""; }},
    };
    iso_params_t params = defaults();
    REQUIRE(iso_params_validate(&quiet, &params) == ISO_OK);
    for (const auto &row : rows) {
        params = defaults();
        row.spoil(params);
        const ChildResult child = in_child(
            [&] { return iso_params_validate(&quiet, &params) == ISO_ERR_INVALID ? 0 : 1; });
        INFO(row.name << ": " << child.stderr_text);
        CHECK(child.exited_with(0));
        CHECK(line_count(child.stderr_text) == 1);
        CHECK(contains(child.stderr_text, row.name));
    }
}

TEST_CASE("every fault is named, not only the first", "[params]")
{
    CleanSettings clean;
    iso_params_t params = defaults();
    params.timeout = 0;
    params.space_size = 1;
    const ChildResult child =
        in_child([&] { return (int)iso_params_validate(&quiet, &params) * -1; });
    CHECK(child.exited_with(-ISO_ERR_INVALID));
    CHECK(line_count(child.stderr_text) == 2);
}
