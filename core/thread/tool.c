/* tool.c - see tool.h. */
#include "core/thread/tool.h"
#ifdef ISO_HAVE_VALGRIND
#include <valgrind/valgrind.h>
#endif

/* Weak: there where the program was built with the sanitizer, whatever this library was built with. */
extern void __asan_unpoison_memory_region(const volatile void *, size_t) __attribute__((weak));
extern void *__asan_get_current_fake_stack(void) __attribute__((weak));
extern void __sanitizer_start_switch_fiber(void **, const void *, size_t) __attribute__((weak));
extern void __sanitizer_finish_switch_fiber(void *, const void **, size_t *) __attribute__((weak));

bool iso_tool_watches;

void iso_tool_look(void)
{
    iso_tool_watches = __sanitizer_start_switch_fiber && __sanitizer_finish_switch_fiber;
}

static size_t stack_size(const iso_thread_t *thread)
{
    return (size_t)((const char *)thread->stack - (const char *)thread->stack->low);
}

void iso_tool_new(iso_thread_t *thread)
{
    if (thread->state == ISO_THREAD_FINISHED)
        return; /* nobody runs on it any more */
    thread->tool = (iso_thread_tool_t){.fake_stack = NULL};
    if (__asan_unpoison_memory_region) /* what was on this stack when it was here last */
        __asan_unpoison_memory_region(thread->stack->low, stack_size(thread));
#ifdef ISO_HAVE_VALGRIND
    if (RUNNING_ON_VALGRIND)
        thread->tool.valgrind =
            1 + (uint64_t)VALGRIND_STACK_REGISTER(thread->stack->low, thread->stack);
#endif
}

void iso_tool_gone(iso_thread_t *thread)
{
#ifdef ISO_HAVE_VALGRIND
    if (thread->tool.valgrind)
        VALGRIND_STACK_DEREGISTER(thread->tool.valgrind - 1);
#endif
    thread->tool.valgrind = 0;
}

void iso_tool_resume(iso_thread_t *thread, void **kept)
{
    __sanitizer_start_switch_fiber(kept, thread->stack->low, stack_size(thread));
}

void iso_tool_resumed(void *kept)
{
    __sanitizer_finish_switch_fiber(kept, NULL, NULL);
}

void iso_tool_begin(iso_thread_t *thread)
{
    __sanitizer_finish_switch_fiber(NULL, &thread->tool.back_low, &thread->tool.back_size);
}

void iso_tool_stop(iso_thread_t *thread, bool last)
{
    __sanitizer_start_switch_fiber(last ? NULL : &thread->tool.fake_stack, thread->tool.back_low,
                                   thread->tool.back_size);
}

void iso_tool_go_on(iso_thread_t *thread)
{
    __sanitizer_finish_switch_fiber(thread->tool.fake_stack, &thread->tool.back_low,
                                    &thread->tool.back_size);
}

bool iso_tool_has_fake_stack(void)
{
    return __asan_get_current_fake_stack && __asan_get_current_fake_stack() != NULL;
}
