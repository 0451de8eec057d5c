/* bare_tell.c - what the two processes tell each other over a socket, before the network connects them. */
#include "bare.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BLOB_MOST 65536 /* bytes of an address or a key */

void bare_tell(const bare_side_t *side, const void *data, size_t len)
{
    for (const char *at = data; len > 0;) {
        ssize_t n = send(side->socket, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            bare_fail(side, "the other process", "has ended");
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

static void hear(const bare_side_t *side, void *data, size_t len)
{
    for (char *at = data; len > 0;) {
        ssize_t n = recv(side->socket, at, len, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            bare_fail(side, "the other process", "has ended");
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
}

bool bare_heard(const bare_side_t *side)
{
    char byte;
    return recv(side->socket, &byte, 1, MSG_DONTWAIT) >= 0; /* 0: it has ended, after it told */
}

void *bare_swap(const bare_side_t *side, const void *mine, uint64_t len, uint64_t *len_p)
{
    uint64_t theirs;
    bare_tell(side, &len, sizeof len);
    bare_tell(side, mine, len);
    hear(side, &theirs, sizeof theirs);
    void *blob = theirs <= BLOB_MOST ? malloc(theirs + 1) : NULL;
    if (!blob)
        bare_fail(side, "the other process", "says what makes no sense");
    hear(side, blob, theirs);
    if (len_p)
        *len_p = theirs;
    return blob;
}
