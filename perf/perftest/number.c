/* number.c - see number.h. */
#include "number.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool number_parse(const char *word, size_t least, size_t most, size_t *value_p)
{
    static const char units[] = "KMG";
    char *end;
    if (*word < '0' || *word > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(word, &end, 0);
    const char *unit = *end ? strchr(units, *end) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (errno || end[unit ? 1 : 0] || value > (most >> shift) || value << shift < least)
        return false;
    *value_p = (size_t)value << shift;
    return true;
}
