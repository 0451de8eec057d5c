/*
 * fault.h - with ISO_FAULT_HANDLER=y: SIGSEGV and SIGBUS at an address of an iso space are explained in
 * one line on stderr (address, heap, cause). Without it the overflow of a stack is, once there is one. Then the handler runs that was there before, or what
 * would have happened without any. The handler runs on the alternative stack, if the thread has one,
 * and calls nothing that is not safe there.
 */
#ifndef ISO_CORE_FAULT_H
#define ISO_CORE_FAULT_H

#include <isomalloc/isomalloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Does nothing unless the setting asks for it. ISO_ERR_SYSTEM, logged. */
iso_status_t iso_fault_open(iso_job_t *job);
/* There is a stack here: from now on its overflow is explained. ISO_ERR_SYSTEM, logged. */
iso_status_t iso_fault_want_stacks(iso_job_t *job);
void iso_fault_close(iso_job_t *job);

#ifdef __cplusplus
}
#endif

#endif
