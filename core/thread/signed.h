/*
 * signed.h - return addresses that mean something in one process only: signed ones (PAC, on aarch64).
 *
 * Code that is built with -mbranch-protection=pac-ret (or standard) signs the return addresses that it stores, with a key that
 * the kernel draws for each process; elsewhere such a function could not return. So a thread with one on its stack does not leave.
 * Found are those of functions with frame records, as compilers make them unless -fomit-frame-pointer says otherwise.
 */
#ifndef ISO_CORE_THREAD_SIGNED_H
#define ISO_CORE_THREAD_SIGNED_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Is one of the return addresses signed, of the frames from this record up? They lie below `end`. */
bool iso_thread_is_signed(const void *record, const void *end);

#ifdef __cplusplus
}
#endif

#endif
