/*
 * log.h - one line to stderr: "[rank] isomalloc: LEVEL text".
 *
 * A logger is a value that a job (or a function that runs before there is one) carries: no global
 * state. A message is one write(2), so that lines of several ranks do not mix. errno is kept.
 */
#ifndef ISO_CORE_LOG_H
#define ISO_CORE_LOG_H

#include <isomalloc/isomalloc.h>
#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct iso_logger {
    iso_log_level_t level; /* messages above it are dropped */
    int32_t rank;          /* -1: not known yet */
} iso_logger_t;

/* The names of the levels as ISO_LOG_LEVEL takes them, by value; ends with NULL. */
extern const char *const iso_log_level_names[];

/* What holds before any params are read: ISO_LOG_LEVEL of the environment, else warnings. */
iso_logger_t iso_logger_default(void);

void iso_log(const iso_logger_t *logger, iso_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void iso_logv(const iso_logger_t *logger, iso_log_level_t level, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

/* A line of the level FATAL, for iso_fatal. */
void iso_log_last_words(int32_t rank, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

/* The last words of a process whose heap is damaged: logs, as the rank that it is (fatal.c), and aborts. */
void iso_fatal(const char *format, ...) __attribute__((noreturn, cold, format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif
#endif
