/* number.h - numbers on the command lines of the programs that measure. */
#ifndef ISO_PERFTEST_NUMBER_H
#define ISO_PERFTEST_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* A whole number from least to most that fills the word, perhaps with K, M or G (2^10, 2^20, 2^30) at its
 * end. false, with *value_p as it was: it is none. */
bool number_parse(const char *word, size_t least, size_t most, size_t *value_p);

#endif
