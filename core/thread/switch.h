/*
 * switch.h - from one stack to another: what a function call must preserve, and the stack protector's canary.
 *
 * An own one, and not Boost.Context's: the canary has to be switched at the same point as the stack, or the functions
 * around it fail their check; what lies on a stack that waits is part of what migrates, so its layout is
 * ours to fix; and unwinders find their way through it.
 */
#ifndef ISO_CORE_THREAD_SWITCH_H
#define ISO_CORE_THREAD_SWITCH_H

#ifdef __cplusplus
extern "C" {
#endif

/* Leaves the stack that the caller is on, whose stack pointer becomes *save, for the one that `to` is the saved
 * pointer of. Returns when somebody switches back: in another process, maybe. Always 0, so that who has nothing
 * more to do can call it last: each function that returns after it does so where the processor did not expect it. */
int iso_thread_switch(void **save, void *to);

/* Makes a stack that ends at `end` one that waits: who switches to it calls main(arg), which never returns, with the
 * caller's canary and floating-point modes. Returns its stack pointer. */
void *iso_thread_prepare(void *end, void (*main)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif

#endif
