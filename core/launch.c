/* launch.c - see launch.h. */
#include "core/launch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Modules that `auto` tries, in this order, where the environment has what their launchers set: to open
 * one costs the libraries that it needs. */
static const struct {
    const char *name, *variable;
} known[] = {{"local", "ISO_LOCAL_SIZE"}, {"pmix", "PMIX_NAMESPACE"}};

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

/* A job of several ranks that no module can join: because there is none, or because the launcher has not
 * set what the module needs. */
static iso_status_t refuse(const iso_logger_t *logger, const iso_params_t *params,
                           const char *launched, const char *module)
{
    char *folders = iso_module_folders(params);
    if (iso_module_present(params, module))
        iso_log(
            logger, ISO_LOG_ERROR,
            "started by %s, but bootstrap %s, which could join such a job, was not given what it "
            "needs (%s, or set ISO_BOOTSTRAP=single for a job of one rank",
            launched, module,
            strcmp(module, "pmix") == 0
                ? "PMIX_NAMESPACE is not set): use iso_run or a launcher with PMIx, such as "
                  "Open MPI's mpirun or srun --mpi=pmix"
                : "other variables ISO_LOCAL_* are not set): leave the environment as it is");
    else
        iso_log(logger, ISO_LOG_ERROR,
                "started by %s, but no bootstrap module can join that job: libisomalloc-%s.so was "
                "looked for in %s; install it or name its folder in ISO_MODULE_PATH, start with "
                "iso_run, or set ISO_BOOTSTRAP=single for a job of one rank",
                launched, module, folders ? folders : "no folder");
    free(folders);
    return ISO_ERR_NO_MODULE;
}

static iso_status_t refuse_if_launched(const iso_logger_t *logger, const iso_params_t *params)
{
    char launched[256];
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const char *value = getenv(launchers[i].variable);
        if (!value || strtol(value, NULL, 10) <= 1)
            continue;
        snprintf(launched, sizeof launched, "%s as one of %s ranks (%s)", launchers[i].name, value,
                 launchers[i].variable);
        return refuse(logger, params, launched, launchers[i].module);
    }
    /* PMIx alone tells a process its rank, and not how many there are */
    const char *pmix = getenv("PMIX_NAMESPACE");
    if (!pmix || getenv("OMPI_COMM_WORLD_SIZE") || getenv("SLURM_STEP_NUM_TASKS"))
        return ISO_OK;
    snprintf(launched, sizeof launched, "a PMIx launcher (PMIX_NAMESPACE=%s)", pmix);
    return refuse(logger, params, launched, "pmix");
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
        if (!getenv(known[i].variable) || !iso_module_present(params, known[i].name) ||
            iso_module_open_bootstrap(logger, params, known[i].name, &module) != ISO_OK)
            continue;
        if (module.bootstrap->detect())
            return join(logger, &module, known[i].name, module_p, bootstrap_p);
        iso_module_close(&module);
    }
    return refuse_if_launched(logger, params);
}
