/*
 * module.h - finding and opening the plug-ins: libisomalloc-<name>.so.
 *
 * Searched, in this order: the folders of params->module_path, else "isomalloc/" beside the library
 * (found by dladdr; for the static library "../lib/isomalloc" and "isomalloc" beside the program,
 * and iso_run's own folder where that started the program), else the install prefix's. A module of another ABI version, or one that cannot be loaded,
 * is refused with a line that says why.
 */
#ifndef ISO_CORE_MODULE_H
#define ISO_CORE_MODULE_H

#include "core/log.h"
#include <isomalloc/bootstrap.h>
#include <isomalloc/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_module {
    void *handle; /* of dlopen */
    const iso_transport_ops_t *transport;
    const iso_bootstrap_module_t *bootstrap;
} iso_module_t;

/* ISO_ERR_NO_MODULE (not found, not loadable; named in the log with the folders searched),
 * ISO_ERR_VERSION (other ABI), ISO_ERR_NO_MEMORY. `name` is as in ISO_TRANSPORT or ISO_BOOTSTRAP. */
iso_status_t iso_module_open_transport(const iso_logger_t *logger, const iso_params_t *params,
                                       const char *name, iso_module_t *module_p);
iso_status_t iso_module_open_bootstrap(const iso_logger_t *logger, const iso_params_t *params,
                                       const char *name, iso_module_t *module_p);
void iso_module_close(iso_module_t *module);

/* The folders that are searched, ':' between, for messages; the caller frees. NULL: no memory. */
char *iso_module_folders(const iso_params_t *params);

/* Is there a module file of that name in the search path? For choosing `auto`, silently. */
bool iso_module_present(const iso_params_t *params, const char *name);

/* Is there a transport of that name, and can it be loaded? If it is there and cannot (a library that it needs is
 * missing, say), a line of that level says why. For choosing `auto`. */
bool iso_module_loads(const iso_logger_t *logger, iso_log_level_t level, const iso_params_t *params,
                      const char *name);

#ifdef __cplusplus
}
#endif

#endif
