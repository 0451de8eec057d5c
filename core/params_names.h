/*
 * params_names.h - names of settings that are none.
 */
#ifndef ISO_CORE_PARAMS_NAMES_H
#define ISO_CORE_PARAMS_NAMES_H

#include "core/log.h"

/* A misspelt setting would otherwise be a setting that silently does nothing: each ISO_ variable of the environment
 * that nobody reads is warned of, with the name that was probably meant, once a process. */
void iso_params_warn_of_unknown_names(const iso_logger_t *logger);

#endif
