/*
 * launch.h - which bootstrap this process was started by.
 */
#ifndef ISO_CORE_LAUNCH_H
#define ISO_CORE_LAUNCH_H

#include "core/module.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Finds and opens the bootstrap: the caller's own, the one named by ISO_BOOTSTRAP, or, for auto, the
 * first module that recognises its launcher. *bootstrap_p NULL: a job of one rank. A process that
 * some launcher says is one of several, without a module for that launcher, is refused: it must not
 * become one of N jobs of one. ISO_ERR_NO_MODULE, ISO_ERR_VERSION, or what the module says. */
iso_status_t iso_launch_open(const iso_logger_t *logger, const iso_params_t *params,
                             iso_module_t *module_p, const iso_bootstrap_t **bootstrap_p);

#ifdef __cplusplus
}
#endif

#endif
