/*
 * params.h - the settings: what the library does with an iso_params_t that a program hands in.
 *
 * The table of settings is in params.c; iso_params_init_sized and iso_settings (isomalloc.h) read it.
 */
#ifndef ISO_CORE_PARAMS_H
#define ISO_CORE_PARAMS_H

#include "core/log.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A complete, valid copy of what the program gave: NULL is defaults and environment; an older
 * program's shorter struct is completed from them; a NULL string is its default. The strings are
 * still the program's. ISO_ERR_INVALID, logged: *params_p has the defaults then, but the way to the
 * other ranks that the program or the environment gave, so that they can be told. */
iso_status_t iso_params_import(const iso_logger_t *logger, const iso_params_t *given,
                               iso_params_t *params_p);

/* Does every field of a complete struct have a value that means something? ISO_ERR_INVALID, each
 * bad one logged. A NULL string is taken for the default. */
iso_status_t iso_params_validate(const iso_logger_t *logger, const iso_params_t *params);

#ifdef __cplusplus
}
#endif
#endif
