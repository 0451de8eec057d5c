/*
 * module.c - finds and opens plug-ins; lists those that are there.
 *
 * Every way in goes through load(): it opens a file, checks the table that it exports and says in one
 * line why it will not do. The first file of a name in the search path decides; a broken one does not
 * make the search go on, because another module than the one that is seen would be used then.
 */
#include "core/module.h"
#include "core/depth.h"
#include "core/os.h"
#include "core/params.h"
#include "core/register.h"
#include "core/space.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define FILE_PREFIX "libisomalloc-"
#define FILE_SUFFIX ".so"

typedef enum module_kind {
    TRANSPORT,
    BOOTSTRAP
} module_kind_t;

static const struct {
    const char *name, *setting, *symbol;
    uint32_t abi;
} kinds[] = {
    [TRANSPORT] = {"transport", "ISO_TRANSPORT", ISO_TRANSPORT_MODULE_SYMBOL, ISO_TRANSPORT_ABI},
    [BOOTSTRAP] = {"bootstrap", "ISO_BOOTSTRAP", ISO_BOOTSTRAP_MODULE_SYMBOL, ISO_BOOTSTRAP_ABI},
};

/* Why a module will not do, in words; for the log or for iso_info. */
typedef struct reason {
    char text[512];
} reason_t;

__attribute__((format(printf, 2, 3))) static void explain(reason_t *reason, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(reason->text, sizeof reason->text, format, args);
    va_end(args);
}

/* ---- where ---------------------------------------------------------------------------------- */

/* The folder of the object (library or program) that this function is in, without a '/' at its end.
 * in_program_p: it is the program, that is, the library is linked statically. */
static bool own_folder(char folder[PATH_MAX], bool *in_program_p)
{
    Dl_info own, program;
    char *slash;

    if (dladdr((void *)(uintptr_t)own_folder, &own) == 0)
        return false;
    *in_program_p =
        dladdr((void *)getauxval(AT_PHDR), &program) != 0 && program.dli_fbase == own.dli_fbase;
    /* A program's dli_fname is what it was called as: no path, perhaps. */
    if (realpath(*in_program_p ? "/proc/self/exe" : own.dli_fname, folder) == NULL)
        return false;
    slash = strrchr(folder, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

char *iso_module_folders(const iso_params_t *params)
{
    char folder[PATH_MAX], *path;
    /* a program with the static library can be anywhere: where is the launcher that started it? */
    const char *launcher = getenv("ISO_LOCAL_MODULES");
    bool in_program;
    int length;

    if (params->module_path != NULL && params->module_path[0] != '\0')
        return strdup(params->module_path);
    if (!own_folder(folder, &in_program))
        return strdup(ISO_INSTALLED_MODULES);
    if (in_program)
        length =
            asprintf(&path, "%s/../lib/isomalloc:%s/isomalloc:%s%s" ISO_INSTALLED_MODULES, folder,
                     folder, launcher != NULL ? launcher : "", launcher != NULL ? ":" : "");
    else
        length = asprintf(&path, "%s/isomalloc:" ISO_INSTALLED_MODULES, folder);
    return length < 0 ? NULL : path;
}

/* The next folder of a search path; false at its end. *cursor_p starts as the path. */
static bool next_folder(const char **cursor_p, char folder[PATH_MAX])
{
    while (**cursor_p != '\0') {
        const size_t length = strcspn(*cursor_p, ":");
        const char *start = *cursor_p;

        *cursor_p += length + ((*cursor_p)[length] == ':');
        if (length > 0 && length < PATH_MAX) {
            memcpy(folder, start, length);
            folder[length] = '\0';
            return true;
        }
    }
    return false;
}

/* The file of the module in the first folder that has it. */
static bool find_file(const char *path, const char *name, char file[PATH_MAX])
{
    char folder[PATH_MAX];

    while (next_folder(&path, folder)) {
        const int length =
            snprintf(file, PATH_MAX, "%s/" FILE_PREFIX "%s" FILE_SUFFIX, folder, name);
        if (length < PATH_MAX && access(file, F_OK) == 0)
            return true;
    }
    return false;
}

bool iso_module_present(const iso_params_t *params, const char *name)
{
    char file[PATH_MAX];
    char *path = iso_module_folders(params);
    const bool found = path != NULL && find_file(path, name, file);

    free(path);
    return found;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Has the table of this ABI version all its functions? */
static bool is_complete(module_kind_t kind, const void *table)
{
    if (kind == BOOTSTRAP) {
        const iso_bootstrap_module_t *bootstrap = table;
        return bootstrap->name != NULL && bootstrap->detect != NULL && bootstrap->open != NULL;
    }

    const iso_transport_ops_t *ops = table;
    if (ops->struct_size < sizeof *ops || ops->name == NULL)
        return false;
    return ops->probe && ops->open && ops->close && ops->query && ops->address && ops->connect &&
           ops->disconnect && ops->mem_register && ops->mem_deregister && ops->rkey_pack &&
           ops->rkey_unpack && ops->rkey_destroy && ops->put && ops->fence && ops->flush &&
           ops->send && ops->progress && ops->event_fd && ops->arm;
}

static iso_status_t load(const char *file, module_kind_t kind, iso_module_t *module_p,
                         reason_t *reason)
{
    iso_module_t module = {.handle = dlopen(file, RTLD_NOW | RTLD_LOCAL)};
    const void *table;
    uint32_t abi;

    if (module.handle == NULL) {
        explain(reason, "cannot be loaded: %s", dlerror());
        return ISO_ERR_NO_MODULE;
    }
    table = dlsym(module.handle, kinds[kind].symbol);
    if (table == NULL) {
        explain(reason, "%s is no %s module: it does not export %s", file, kinds[kind].name,
                kinds[kind].symbol);
        dlclose(module.handle);
        return ISO_ERR_NO_MODULE;
    }
    memcpy(&abi, table, sizeof abi); /* the first field, in every version */
    if (abi != kinds[kind].abi) {
        explain(reason,
                "%s has ABI version %u, this library (%s) needs %u: install the module of the same "
                "release",
                file, abi, iso_version(NULL, NULL, NULL), kinds[kind].abi);
        dlclose(module.handle);
        return ISO_ERR_VERSION;
    }
    if (!is_complete(kind, table)) {
        explain(reason, "%s lacks functions of ABI version %u: it is broken, install it anew", file,
                abi);
        dlclose(module.handle);
        return ISO_ERR_VERSION;
    }
    if (kind == TRANSPORT)
        module.transport = table;
    else
        module.bootstrap = table;
    *module_p = module;
    return ISO_OK;
}

static iso_status_t open_module(const iso_logger_t *logger, const iso_params_t *params,
                                module_kind_t kind, const char *name, iso_module_t *module_p)
{
    char *path = iso_module_folders(params), file[PATH_MAX];
    iso_status_t status = ISO_ERR_NO_MODULE;
    reason_t reason;

    if (path == NULL) {
        iso_log(logger, ISO_LOG_ERROR, "no memory to look for %s '%s'", kinds[kind].name, name);
        return ISO_ERR_NO_MEMORY;
    }
    if (!find_file(path, name, file)) {
        iso_log(logger, ISO_LOG_ERROR,
                "no %s '%s': no " FILE_PREFIX "%s" FILE_SUFFIX
                " in %s: name the folder that has it in ISO_MODULE_PATH, or set %s",
                kinds[kind].name, name, name, path, kinds[kind].setting);
        goto free_path;
    }
    status = load(file, kind, module_p, &reason);
    if (status == ISO_OK)
        iso_log(logger, ISO_LOG_DEBUG, "%s '%s' is %s", kinds[kind].name, name, file);
    else
        iso_log(logger, ISO_LOG_ERROR, "%s '%s' %s", kinds[kind].name, name, reason.text);

free_path:
    free(path);
    return status;
}

iso_status_t iso_module_open_transport(const iso_logger_t *logger, const iso_params_t *params,
                                       const char *name, iso_module_t *module_p)
{
    return open_module(logger, params, TRANSPORT, name, module_p);
}

iso_status_t iso_module_open_bootstrap(const iso_logger_t *logger, const iso_params_t *params,
                                       const char *name, iso_module_t *module_p)
{
    return open_module(logger, params, BOOTSTRAP, name, module_p);
}

bool iso_module_loads(const iso_logger_t *logger, iso_log_level_t level, const iso_params_t *params,
                      const char *name)
{
    char *path = iso_module_folders(params), file[PATH_MAX];
    iso_module_t module;
    reason_t reason = {""};
    bool loads = false;

    if (path != NULL && find_file(path, name, file)) {
        loads = load(file, TRANSPORT, &module, &reason) == ISO_OK;
        if (loads)
            iso_module_close(&module);
        else
            iso_log(logger, level, "transport '%s' %s: ISO_TRANSPORT=auto goes on without it", name,
                    reason.text);
    }
    free(path);
    return loads;
}

void iso_module_close(iso_module_t *module)
{
    if (module->handle != NULL)
        dlclose(module->handle);
    *module = (iso_module_t){0};
}

/* ---- listing -------------------------------------------------------------------------------- */

static void host_message(void *arg, uint32_t src, const void *data, size_t len)
{
    (void)arg, (void)src, (void)data, (void)len; /* a job of one rank has nobody to hear from */
}

static void host_peer_failed(void *arg, uint32_t rank, iso_failure_t failure)
{
    (void)arg, (void)rank, (void)failure;
}

/* Keeps the first error that the transport reports: the reason why it is not usable. */
static void host_log(void *arg, iso_log_level_t level, const char *text)
{
    reason_t *reason = arg;

    if (level == ISO_LOG_ERROR && reason->text[0] == '\0')
        explain(reason, "%s", text);
}

/* Opens an instance of one rank for a moment: what a transport can do, only an instance knows. */
static bool try_transport(const iso_transport_ops_t *ops, const iso_params_t *params,
                          iso_transport_caps_t *caps_p, reason_t *reason)
{
    iso_transport_host_t host = {.struct_size = sizeof host,
                                 .size = 1,
                                 .arg = reason,
                                 .message = host_message,
                                 .peer_failed = host_peer_failed,
                                 .log = host_log,
                                 .on_demand = params->registration == ISO_REGISTER_ODP,
                                 .provider = params->ofi_provider};
    iso_transport_t *transport;
    const char *why = NULL;
    iso_status_t status;

    reason->text[0] = '\0';
    if (ops->probe(&why) != ISO_OK) {
        explain(reason, "%s", why != NULL ? why : "it does not say why");
        return false;
    }
    status = iso_os_random(host.cookie, sizeof host.cookie);
    if (status == ISO_OK)
        status = ops->open(&host, &transport);
    if (status != ISO_OK) {
        if (reason->text[0] == '\0')
            explain(reason, "cannot be opened: %s", iso_status_string(status));
        return false;
    }
    *caps_p = (iso_transport_caps_t){.struct_size = sizeof *caps_p};
    ops->query(transport, caps_p);
    /* what it says of itself may be the instance's */
    explain(reason, "%s", caps_p->description ? caps_p->description : "");
    caps_p->description = reason->text;
    ops->close(transport);
    return true;
}

/* Does the file contain the word? Tells what a module that cannot be loaded (because a library that
 * it needs is missing, say) would be. */
static bool file_contains(const char *file, const char *word)
{
    const size_t overlap = strlen(word);
    char buf[4096];
    size_t kept = 0, got;
    bool found = false;
    FILE *stream = fopen(file, "re");

    if (stream == NULL)
        return false;
    while (!found && (got = fread(buf + kept, 1, sizeof buf - kept, stream)) > 0) {
        const size_t have = kept + got;
        found = memmem(buf, have, word, strlen(word)) != NULL;
        kept = have < overlap ? have : overlap;
        memmove(buf, buf + have - kept, kept);
    }
    fclose(stream);
    return found;
}

typedef struct listing {
    const iso_params_t *params;
    void (*fn)(const iso_module_info_t *info, void *arg);
    void *arg;
} listing_t;

static void tell(const listing_t *listing, const iso_module_info_t *info)
{
    iso_depth_enter();
    listing->fn(info, listing->arg);
    iso_depth_leave();
}

static void list_file(const listing_t *listing, const char *file, const char *name)
{
    for (module_kind_t kind = TRANSPORT; kind <= BOOTSTRAP; kind++) {
        iso_module_info_t info = {.kind = kinds[kind].name, .name = name, .path = file};
        iso_module_t module;
        reason_t reason = {""};
        char registration[192];

        if (!file_contains(file, kinds[kind].symbol))
            continue;
        if (load(file, kind, &module, &reason) != ISO_OK) {
            info.why = reason.text;
            tell(listing, &info);
            continue;
        }
        if (kind == TRANSPORT) {
            info.usable = try_transport(module.transport, listing->params, &info.caps, &reason);
            if (info.usable) {
                uint64_t base, size;
                iso_space_propose(listing->params, &base, &size);
                iso_register_describe(listing->params, &info.caps, size, registration,
                                      sizeof registration);
                info.registration = registration;
            }
        } else {
            info.usable = module.bootstrap->detect();
            explain(&reason, "its launcher did not start this process");
        }
        info.why = info.usable ? NULL : reason.text;
        tell(listing, &info);
        iso_module_close(&module);
    }
}

static int is_module_file(const struct dirent *entry)
{
    const size_t length = strlen(entry->d_name), prefix = strlen(FILE_PREFIX),
                 suffix = strlen(FILE_SUFFIX);

    return length > prefix + suffix && strncmp(entry->d_name, FILE_PREFIX, prefix) == 0 &&
           strcmp(entry->d_name + length - suffix, FILE_SUFFIX) == 0;
}

/* The modules of one folder, but for those that an earlier one of the path hides. */
static void list_folder(const listing_t *listing, const char *path, const char *folder)
{
    struct dirent **entries;
    const int count = scandir(folder, &entries, is_module_file, alphasort);

    for (int i = 0; i < count; i++) {
        char file[PATH_MAX], used_file[PATH_MAX], name[NAME_MAX + 1];
        const char *start = entries[i]->d_name + strlen(FILE_PREFIX);

        snprintf(name, sizeof name, "%.*s", (int)(strlen(start) - strlen(FILE_SUFFIX)), start);
        if (snprintf(file, sizeof file, "%s/%s", folder, entries[i]->d_name) < PATH_MAX &&
            find_file(path, name, used_file) && strcmp(file, used_file) == 0)
            list_file(listing, file, name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* Is the folder that was taken from the path just before `after` named there for the first time? */
static bool is_first_mention(const char *path, const char *folder, const char *after)
{
    char mention[PATH_MAX];

    while (next_folder(&path, mention) && strcmp(mention, folder) != 0)
        ;
    return path == after;
}

void iso_modules(const iso_params_t *params, void (*fn)(const iso_module_info_t *info, void *arg),
                 void *arg)
{
    const iso_logger_t logger = iso_logger_default();
    listing_t listing = {.fn = fn, .arg = arg};
    char folder[PATH_MAX], *path;
    iso_params_t complete;

    if (iso_params_import(&logger, params, &complete) != ISO_OK)
        return;
    listing.params = &complete;
    path = iso_module_folders(&complete);
    for (const char *cursor = path; cursor != NULL && next_folder(&cursor, folder);)
        if (is_first_mention(path, folder, cursor))
            list_folder(&listing, path, folder);
    free(path);
}
