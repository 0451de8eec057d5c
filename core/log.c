/*
 * log.c - makes the lines of log.h.
 *
 * A line is built on the stack and written by one write(2); it is at most LINE_MAX_BYTES long, less
 * than what a pipe takes in one piece (PIPE_BUF), and is cut visibly beyond that. Nothing here
 * allocates: last words are said when memory is known to be damaged.
 */
#include "core/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

const char *const iso_log_level_names[] = {"error", "warn", "info", "debug", NULL};

static const char *const level_tags[] = {"ERROR", "WARN", "INFO", "DEBUG"};

iso_logger_t iso_logger_default(void)
{
    iso_logger_t logger = {.level = ISO_LOG_WARN, .rank = -1};
    const char *text = getenv("ISO_LOG_LEVEL");

    /* A value that is no level is reported by the settings' parser, with all others. */
    for (int level = 0; text != NULL && iso_log_level_names[level] != NULL; level++)
        if (strcasecmp(text, iso_log_level_names[level]) == 0)
            logger.level = (iso_log_level_t)level;
    return logger;
}

/* "[rank] isomalloc: TAG text\n" in one write. */
__attribute__((format(printf, 3, 0))) static void write_line(int32_t rank, const char *tag,
                                                             const char *format, va_list args)
{
    static const char cut[] = "...";
    const int saved_errno = errno;
    char line[LINE_MAX_BYTES];
    int head, text;
    size_t length, written = 0;

    if (rank >= 0)
        head = snprintf(line, sizeof line, "[%d] isomalloc: %s ", (int)rank, tag);
    else
        head = snprintf(line, sizeof line, "[?] isomalloc: %s ", tag);
    errno = saved_errno; /* for %m */
    text = vsnprintf(line + head, sizeof line - (size_t)head, format, args);
    if (text < 0)
        text = snprintf(line + head, sizeof line - (size_t)head, "(unprintable) %s", format);
    length = (size_t)head + (size_t)text;
    if (length > sizeof line - 1) {
        length = sizeof line - 1;
        memcpy(line + length - strlen(cut), cut, strlen(cut));
    }
    for (size_t i = (size_t)head; i < length; i++)
        if (line[i] == '\n') /* a value from outside must not fake a second line */
            line[i] = ' ';
    line[length++] = '\n';

    while (written < length) {
        const ssize_t n = write(STDERR_FILENO, line + written, length - written);
        if (n > 0)
            written += (size_t)n;
        else if (n == 0 || errno != EINTR)
            break; /* nobody reads stderr: there is no other place to say so */
    }
    errno = saved_errno;
}

void iso_logv(const iso_logger_t *logger, iso_log_level_t level, const char *format, va_list args)
{
    if (level <= logger->level)
        write_line(logger->rank, level_tags[level], format, args);
}

void iso_log(const iso_logger_t *logger, iso_log_level_t level, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    iso_logv(logger, level, format, args);
    va_end(args);
}

void iso_log_last_words(int32_t rank, const char *format, va_list args)
{
    write_line(rank, "FATAL", format, args);
}
