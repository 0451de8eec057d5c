/*
 * status.c - what people are told: the meaning of status codes, and the version.
 */
#include <isomalloc/isomalloc.h>

#define TEXT_(value) #value
#define TEXT(value) TEXT_(value)

const char *iso_version(unsigned *major_p, unsigned *minor_p, unsigned *patch_p)
{
    if (major_p != NULL)
        *major_p = ISO_VERSION_MAJOR;
    if (minor_p != NULL)
        *minor_p = ISO_VERSION_MINOR;
    if (patch_p != NULL)
        *patch_p = ISO_VERSION_PATCH;
    return TEXT(ISO_VERSION_MAJOR) "." TEXT(ISO_VERSION_MINOR) "." TEXT(ISO_VERSION_PATCH);
}

const char *iso_status_string(iso_status_t status)
{
    switch (status) { /* no default: the compiler names a code that is missing here */
    case ISO_OK:
        return "success";
    case ISO_INPROGRESS:
        return "in progress";
    case ISO_ERR_INVALID:
        return "invalid argument or setting";
    case ISO_ERR_NO_MEMORY:
        return "out of memory";
    case ISO_ERR_NO_SPACE:
        return "no free slots in the iso space";
    case ISO_ERR_LIMIT:
        return "a limit of the machine or of a setting is too small";
    case ISO_ERR_NO_MODULE:
        return "module not found or not loadable";
    case ISO_ERR_VERSION:
        return "versions or data layouts differ";
    case ISO_ERR_NOT_OWNER:
        return "the heap is not at this rank";
    case ISO_ERR_BUSY:
        return "object is in use";
    case ISO_ERR_RANK:
        return "no such rank in the job";
    case ISO_ERR_REFUSED:
        return "the target refused the heap";
    case ISO_ERR_TIMED_OUT:
        return "no answer in time";
    case ISO_ERR_IN_DOUBT:
        return "no answer after the commit: the heap is in doubt";
    case ISO_ERR_PEER_DEAD:
        return "the peer's process is gone";
    case ISO_ERR_UNREACHABLE:
        return "no transport leads to the peer";
    case ISO_ERR_NOT_MOVABLE:
        return "the block cannot move on its own";
    case ISO_ERR_SYSTEM:
        return "a system call failed";
    case ISO_ERR_AGAIN:
        return "no room now: try again later";
    case ISO_ERR_CODE:
        return "the heap has stacks, and the code there differs, or its addresses do (iso_run "
               "--no-aslr)";
    case ISO_ERR_CANCELED:
        return "canceled by the caller";
    }
    return "unknown status";
}
