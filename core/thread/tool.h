/*
 * tool.h - AddressSanitizer and Valgrind are told of stacks and of switches, where they run. Else nothing happens.
 */
#ifndef ISO_CORE_THREAD_TOOL_H
#define ISO_CORE_THREAD_TOOL_H

#include "core/thread/thread.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Does one run? Else none of these is called for a switch. */
extern bool iso_tool_watches __attribute__((visibility("hidden")));
void iso_tool_look(void);

/* A thread was made, or has come: it has a stack here. It goes. */
void iso_tool_new(iso_thread_t *thread);
void iso_tool_gone(iso_thread_t *thread);

/* Around a switch to the thread: before, with what is to be kept meanwhile; after, when it has stopped. */
void iso_tool_resume(iso_thread_t *thread, void **kept);
void iso_tool_resumed(void *kept);
/* The same in the thread: it begins, stops, goes on; `last`: it never goes on. */
void iso_tool_begin(iso_thread_t *thread);
void iso_tool_stop(iso_thread_t *thread, bool last);
void iso_tool_go_on(iso_thread_t *thread);

/* Are the locals of functions somewhere else than on the stack? */
bool iso_tool_has_fake_stack(void);

#ifdef __cplusplus
}
#endif

#endif
