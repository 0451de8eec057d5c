// Finding, opening and listing modules: what is refused, and with which words.
#include "core/module.h"
#include "core/params.h"
#include "tests/unit/folder.hpp"
#include "tests/unit/support.hpp"
#include <cstring>
#include <map>
#include <memory>
#include <sys/stat.h>

static const iso_logger_t logger = {ISO_LOG_WARN, 0};

static iso_params_t params_with(const char *module_path)
{
    iso_params_t params;
    REQUIRE(iso_params_init(&params) == ISO_OK);
    params.module_path = module_path;
    return params;
}

// What opening says, and its status (as the child's exit code, negated).
static ChildResult open_in_child(const iso_params_t &params, const char *name,
                                 bool bootstrap = false)
{
    return in_child([&] {
        iso_module_t module;
        return -(bootstrap ? iso_module_open_bootstrap
                           : iso_module_open_transport)(&logger, &params, name, &module);
    });
}

TEST_CASE("a good module is opened by its name", "[module]")
{
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    iso_module_t module = {};

    REQUIRE(iso_module_open_transport(&logger, &params, "good", &module) == ISO_OK);
    REQUIRE(module.transport != nullptr);
    CHECK(module.bootstrap == nullptr);
    CHECK(std::string(module.transport->name) == "test");
    iso_module_close(&module);
    CHECK(module.handle == nullptr);
    CHECK(module.transport == nullptr);

    REQUIRE(iso_module_open_bootstrap(&logger, &params, "good", &module) == ISO_OK);
    REQUIRE(module.bootstrap != nullptr);
    CHECK(module.transport == nullptr);
    iso_module_close(&module);
    iso_module_close(&module); // of a closed one: nothing
}

TEST_CASE("a missing module is named with the folders that were searched", "[module]")
{
    const iso_params_t params = params_with("/nonexistent/a::/nonexistent/b");
    CHECK_FALSE(iso_module_present(&params, "zebra"));
    for (bool bootstrap : {false, true}) {
        const ChildResult child = open_in_child(params, "zebra", bootstrap);
        INFO(child.stderr_text);
        CHECK(child.exited_with(-ISO_ERR_NO_MODULE));
        CHECK(line_count(child.stderr_text) == 1);
        CHECK(contains(child.stderr_text,
                       bootstrap ? "no bootstrap 'zebra'" : "no transport 'zebra'"));
        CHECK(contains(child.stderr_text, "libisomalloc-zebra.so"));
        CHECK(contains(child.stderr_text, "/nonexistent/a::/nonexistent/b"));
        CHECK(contains(child.stderr_text, bootstrap ? "ISO_BOOTSTRAP" : "ISO_TRANSPORT"));
        CHECK(contains(child.stderr_text, "ISO_MODULE_PATH"));
    }
}

TEST_CASE("without a module path the folders near the program are searched", "[module]")
{
    const iso_params_t params = params_with("");
    const ChildResult child = open_in_child(params, "zebra");
    char program[4096] = "";
    REQUIRE(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    const std::string folder = std::string(program).substr(0, std::string(program).rfind('/'));
    INFO(child.stderr_text);
    CHECK(child.exited_with(-ISO_ERR_NO_MODULE));
    CHECK(contains(child.stderr_text, folder + "/../lib/isomalloc:" + folder + "/isomalloc:/"));
}

TEST_CASE("a module of another ABI is refused with both versions", "[module]")
{
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    CHECK(iso_module_present(&params, "newer"));
    for (bool bootstrap : {false, true}) {
        const uint32_t ours = bootstrap ? ISO_BOOTSTRAP_ABI : ISO_TRANSPORT_ABI;
        const ChildResult child = open_in_child(params, "newer", bootstrap);
        INFO(child.stderr_text);
        CHECK(child.exited_with(-ISO_ERR_VERSION));
        CHECK(line_count(child.stderr_text) == 1);
        CHECK(contains(child.stderr_text, ISO_TEST_MODULES
                                              "/libisomalloc-newer.so has ABI version " +
                                              std::to_string(ours + 1)));
        CHECK(contains(child.stderr_text, "needs " + std::to_string(ours)));
    }
}

TEST_CASE("a module that lacks functions is refused", "[module]")
{
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    for (bool bootstrap : {false, true}) {
        const ChildResult child = open_in_child(params, "incomplete", bootstrap);
        CHECK(child.exited_with(-ISO_ERR_VERSION));
        CHECK(contains(child.stderr_text, "libisomalloc-incomplete.so lacks functions"));
    }
}

TEST_CASE("a module that needs what is not there is refused with the loader's words", "[module]")
{
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    const ChildResult child = open_in_child(params, "nolibrary");
    CHECK(child.exited_with(-ISO_ERR_NO_MODULE));
    CHECK(line_count(child.stderr_text) == 1);
    CHECK(contains(child.stderr_text, "iso_test_symbol_of_a_missing_library"));
}

TEST_CASE("a shared object that is no module is refused", "[module]")
{
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    const ChildResult child = open_in_child(params, "nomodule");
    CHECK(child.exited_with(-ISO_ERR_NO_MODULE));
    CHECK(contains(child.stderr_text, "does not export iso_transport_module"));
}

TEST_CASE("a file that is no shared object is refused", "[module]")
{
    const Folder folder;
    folder.add("libisomalloc-text.so", "this is text\n");
    folder.add("libisomalloc-empty.so", "");
    const iso_params_t params = params_with(folder.path().c_str());
    for (const char *name : {"text", "empty"}) {
        const ChildResult child = open_in_child(params, name);
        INFO(child.stderr_text);
        CHECK(child.exited_with(-ISO_ERR_NO_MODULE));
        CHECK(line_count(child.stderr_text) == 1);
        CHECK(contains(child.stderr_text, folder.path() + "/libisomalloc-" + name + ".so"));
    }
}

TEST_CASE("the first folder that has a module decides, even if the module is broken", "[module]")
{
    const Folder first;
    first.add("libisomalloc-good.so", "not this one\n");
    const std::string path = first.path() + ":" ISO_TEST_MODULES;
    const std::string reversed = ISO_TEST_MODULES ":" + first.path();
    const iso_params_t params = params_with(path.c_str()), other = params_with(reversed.c_str());
    CHECK(open_in_child(params, "good").exited_with(-ISO_ERR_NO_MODULE));
    CHECK(open_in_child(other, "good").exited_with(0));
}

TEST_CASE("nothing is written to the output when opening fails", "[module]")
{
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    CHECK(in_child([&] {
              iso_module_t module, before;
              memset(&module, 0x5a, sizeof module);
              before = module;
              const bool failed =
                  iso_module_open_transport(&logger, &params, "newer", &module) != ISO_OK;
              return failed && memcmp(&module, &before, sizeof module) == 0 ? 0 : 1;
          }).exited_with(0));
}

struct Listed {
    bool usable;
    std::string path, why, description;
};
using Listing = std::multimap<std::string, Listed>; // "kind name"

static Listing list(const iso_params_t *params)
{
    Listing listing;
    iso_modules(
        params,
        [](const iso_module_info_t *info, void *arg) {
            static_cast<Listing *>(arg)->insert(
                {std::string(info->kind) + " " + info->name,
                 {info->usable, info->path, info->why != nullptr ? info->why : "",
                  info->caps.description != nullptr ? info->caps.description : ""}});
        },
        &listing);
    return listing;
}

TEST_CASE("modules are listed once each, with what they can do or why they cannot", "[module]")
{
    const Folder second;
    second.link("libisomalloc-good.so", ISO_TEST_MODULES "/libisomalloc-good.so"); // hidden
    second.link("libisomalloc-other.so", ISO_TEST_MODULES "/libisomalloc-good.so");
    second.link("libisomalloc-.so", ISO_TEST_MODULES "/libisomalloc-good.so"); // no name
    second.add("libisomalloc-text.so", "this is text\n");
    second.add("README", "iso_transport_module\n");
    const std::string path =
        ISO_TEST_MODULES ":/nonexistent:" + second.path() + ":" ISO_TEST_MODULES;
    const iso_params_t params = params_with(path.c_str());
    const Listing listing = list(&params);
    const auto the = [&](const char *key) {
        INFO(key);
        REQUIRE(listing.count(key) == 1);
        return listing.find(key)->second;
    };

    CHECK(the("transport good").usable);
    CHECK(the("transport good").path == ISO_TEST_MODULES "/libisomalloc-good.so");
    CHECK(the("transport good").why.empty());
    CHECK(the("transport good").description == "for tests only");
    CHECK(the("transport other").path == second.path() + "/libisomalloc-other.so");
    CHECK_FALSE(the("bootstrap good").usable);
    CHECK(contains(the("bootstrap good").why, "launcher"));
    CHECK_FALSE(the("transport newer").usable);
    CHECK(contains(the("transport newer").why, "ABI version"));
    CHECK_FALSE(the("bootstrap newer").usable);
    CHECK(contains(the("transport incomplete").why, "lacks functions"));
    CHECK(the("transport nodevice").why == "there is no such device");
    CHECK(the("transport busydevice").why == "the device is busy");
    CHECK(contains(the("transport nolibrary").why, "iso_test_symbol_of_a_missing_library"));
    CHECK(listing.size() == 2 * 7); // six modules and "other", each both kinds; nothing else
}

TEST_CASE("a bootstrap whose launcher started the process is listed as usable", "[module]")
{
    ScopedEnv env("ISO_TEST_DETECTED", "1");
    const iso_params_t params = params_with(ISO_TEST_MODULES);
    const Listing listing = list(&params);
    REQUIRE(listing.count("bootstrap good") == 1);
    CHECK(listing.find("bootstrap good")->second.usable);
}
