/*
 * depth.h - how many calls of the library the calling thread is inside of, while code of the program's runs: its
 * callbacks, and what it does while it has the lock of a heap for many threads. See iso_call_depth.
 */
#ifndef ISO_CORE_DEPTH_H
#define ISO_CORE_DEPTH_H

#ifdef __cplusplus
extern "C" {
#endif

extern __thread unsigned iso_depth __attribute__((visibility("hidden"), tls_model("initial-exec")));

/* Around each call of a function of the program's. */
static inline void iso_depth_enter(void)
{
    iso_depth++;
}
static inline void iso_depth_leave(void)
{
    iso_depth--;
}

#ifdef __cplusplus
}
#endif

#endif
