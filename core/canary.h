/*
 * canary.h - the stack protector's canary, on processors where it is one word of the process's (aarch64).
 *
 * Functions that are built with -fstack-protector keep a copy of it below their caller's frame, and compare when they return. A stack
 * that has come from another process has that one's. So a heap with stacks says whose canary is on them, and where it is
 * thawed in a process of another one, each word on a stack's used part that is the old canary becomes the new one. None is
 * missed: a copy is a whole, aligned word, as compilers store it. What an overflow has overwritten is not the old canary, stays as it is,
 * and is found when the function returns, wherever that is. A word of the program's own that happened to be the same, of 56 random
 * bits, would be changed too: one in 2^56.
 *
 * On x86_64 each thread of the system has a canary at a place that the compiler knows, so who switches stacks switches it as well
 * (core/thread/switch_x86_64.S), and nothing is replaced.
 */
#ifndef ISO_CORE_CANARY_H
#define ISO_CORE_CANARY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What all stacks of this process have; 0: each has its own. */
uint64_t iso_canary(void);

/* Each word of the range that is `was` becomes `is`. */
void iso_canary_replace(uint64_t *from, const uint64_t *end, uint64_t was, uint64_t is);

#ifdef __cplusplus
}
#endif

#endif
