/* launch.c - see launch.h. */
#include "core/launch.h"
#include <stdlib.h>
#include <string.h>

/* Modules that `auto` tries, in this order. */
static const char *const known[] = {"local", "pmix"};

/* What launchers say in the environment about the number of ranks. */
typedef struct launcher {
    const char *name;
    const char *variable; /* the number of ranks */
    const char *module;   /* that could join such a job */
} launcher_t;

static const launcher_t launchers[] = {
    {"iso_run", "ISO_LOCAL_SIZE", "local"},
    {"Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "pmix"},
    {"srun", "SLURM_STEP_NUM_TASKS", "pmix"},
    {"a PMI launcher", "PMI_SIZE", "pmix"},
};

static void log_plain(iso_log_level_t level, const char *text)
{
    iso_logger_t logger = iso_logger_default();
    iso_log(&logger, level, "%s", text);
}

static iso_status_t refuse_if_launched(const iso_logger_t *logger, const iso_params_t *params)
{
    char *folders = iso_module_folders(params);
    iso_status_t status = ISO_OK;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const char *value = getenv(launchers[i].variable);
        if (!value || strtol(value, NULL, 10) <= 1)
            continue;
        iso_log(logger, ISO_LOG_ERROR,
                "started by %s as one of %s ranks (%s), but no bootstrap module can join that job: "
                "libisomalloc-%s.so was looked for in %s; install it or name its folder in "
                "ISO_MODULE_PATH, start with iso_run, or set ISO_BOOTSTRAP=single for a job of one "
                "rank",
                launchers[i].name, value, launchers[i].variable, launchers[i].module,
                folders ? folders : "no folder");
        status = ISO_ERR_NO_MODULE;
        break;
    }
    /* PMIx alone tells a process its rank, and not how many there are */
    const char *pmix = getenv("PMIX_NAMESPACE");
    if (status == ISO_OK && pmix && !getenv("OMPI_COMM_WORLD_SIZE") &&
        !getenv("SLURM_STEP_NUM_TASKS")) {
        iso_log(logger, ISO_LOG_ERROR,
                "started by a PMIx launcher (PMIX_NAMESPACE=%s), but no bootstrap module can join "
                "its job: libisomalloc-pmix.so was looked for in %s; install it or name its folder "
                "in ISO_MODULE_PATH, start with iso_run, or set ISO_BOOTSTRAP=single for a job of "
                "one rank",
                pmix, folders ? folders : "no folder");
        status = ISO_ERR_NO_MODULE;
    }
    free(folders);
    return status;
}

static iso_status_t join(const iso_logger_t *logger, iso_module_t *module, const char *name,
                         iso_module_t *module_p, const iso_bootstrap_t **bootstrap_p)
{
    iso_bootstrap_t *bootstrap;
    iso_status_t status = module->bootstrap->open(log_plain, &bootstrap);
    if (status == ISO_OK && bootstrap->abi_version != ISO_BOOTSTRAP_ABI) {
        iso_log(logger, ISO_LOG_ERROR, "bootstrap %s has ABI version %u, this library %u", name,
                bootstrap->abi_version, ISO_BOOTSTRAP_ABI);
        if (bootstrap->close)
            bootstrap->close(bootstrap->ctx);
        status = ISO_ERR_VERSION;
    }
    if (status != ISO_OK) {
        iso_module_close(module);
        return status;
    }
    *module_p = *module;
    *bootstrap_p = bootstrap;
    return ISO_OK;
}

iso_status_t iso_launch_open(const iso_logger_t *logger, const iso_params_t *params,
                             iso_module_t *module_p, const iso_bootstrap_t **bootstrap_p)
{
    iso_module_t module;
    *module_p = (iso_module_t){0};
    *bootstrap_p = NULL;
    if (params->caller_bootstrap) {
        const iso_bootstrap_t *own = params->caller_bootstrap;
        if (own->abi_version != ISO_BOOTSTRAP_ABI || own->rank >= own->size || !own->allgather ||
            !own->barrier_start || !own->barrier_test || !own->publish != !own->lookup) {
            iso_log(
                logger, ISO_LOG_ERROR,
                "the caller's bootstrap is not usable: ABI version %u (this library: %u), rank "
                "%u of %u, and it must have allgather, barrier_start, barrier_test, and publish "
                "and lookup or neither",
                own->abi_version, ISO_BOOTSTRAP_ABI, own->rank, own->size);
            return ISO_ERR_INVALID;
        }
        *bootstrap_p = own;
        return ISO_OK;
    }
    if (strcmp(params->bootstrap, "single") == 0)
        return ISO_OK;
    if (strcmp(params->bootstrap, "auto") != 0) {
        iso_status_t status = iso_module_open_bootstrap(logger, params, params->bootstrap, &module);
        return status == ISO_OK ? join(logger, &module, params->bootstrap, module_p, bootstrap_p)
                                : status;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!iso_module_present(params, known[i]) ||
            iso_module_open_bootstrap(logger, params, known[i], &module) != ISO_OK)
            continue;
        if (module.bootstrap->detect())
            return join(logger, &module, known[i], module_p, bootstrap_p);
        iso_module_close(&module);
    }
    return refuse_if_launched(logger, params);
}
