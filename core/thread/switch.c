/* switch.c - what a new stack begins with, see iso_thread_prepare in thread.h, and the processor's .S. */
#include <isomalloc/thread.h>
#include <stdint.h>

extern void iso_thread_entry(void);

#if defined(__x86_64__)

typedef struct frame { /* as switch_x86_64.S has it */
    uint32_t mxcsr;
    uint16_t x87, unused;
    uint64_t canary, r15, r14, r13, r12, rbx, rbp, rip;
} frame_t;

void *iso_thread_prepare(void *end, void (*main)(void *arg), void *arg)
{
    /* when rip is taken off, the stack pointer is a multiple of 16 */
    frame_t *frame = (frame_t *)(((uintptr_t)end & ~(uintptr_t)15) - sizeof *frame);
    *frame = (frame_t){
        .r12 = (uintptr_t)main, .rbx = (uintptr_t)arg, .rip = (uintptr_t)iso_thread_entry};
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1\n\tmovq %%fs:40, %2"
                     : "=m"(frame->mxcsr), "=m"(frame->x87), "=r"(frame->canary));
    return frame;
}

#else
/* cppcheck-suppress preprocessorErrorDirective */
#error "no switch of stacks for this processor: CMakeLists.txt leaves the library out"
#endif
