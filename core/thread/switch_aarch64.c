/* switch_aarch64.c - what a new stack begins with on aarch64, see iso_thread_prepare in thread.h, and switch_aarch64.S. */
#include <isomalloc/thread.h>
#include <stdint.h>

extern void iso_thread_entry(void);

typedef struct frame { /* as switch_aarch64.S has it */
    uint64_t x29, x30, x19, x20, x21_to_x28[8], d8_to_d15[8], fpcr, unused;
} frame_t;

void *iso_thread_prepare(void *end, void (*main)(void *arg), void *arg)
{
    /* the stack pointer is a multiple of 16 at all times */
    frame_t *frame = (frame_t *)(((uintptr_t)end & ~(uintptr_t)15) - sizeof *frame);
    *frame = (frame_t){
        .x19 = (uintptr_t)main, .x20 = (uintptr_t)arg, .x30 = (uintptr_t)iso_thread_entry};
    __asm__ volatile("mrs %0, fpcr" : "=r"(frame->fpcr));
    return frame;
}
