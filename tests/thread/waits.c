/* waits.c - a thread that waits in the depth of its calls, for a debugger to look at: see gdb.sh. */
#include <isomalloc/thread.h>
#include <signal.h>

iso_thread_t *the_thread;

static __attribute__((noinline)) int deep(int n)
{
    volatile int here = n;
    if (n == 0)
        iso_thread_suspend();
    else
        here += deep(n - 1);
    return here;
}

static void *work(void *arg)
{
    return deep(3) > 0 ? arg : NULL;
}

int main(void)
{
    iso_job_t *job;
    iso_heap_t *heap;
    if (iso_init(NULL, &job) != ISO_OK || iso_threads_open(job, NULL) != ISO_OK ||
        iso_heap_create(job, &heap) != ISO_OK ||
        iso_thread_create(heap, work, NULL, NULL, &the_thread) != ISO_OK ||
        iso_thread_resume(the_thread, NULL) != ISO_OK)
        return 1;
    raise(SIGTRAP);
    iso_thread_awaken(the_thread);
    if (iso_thread_join(the_thread, NULL) != ISO_OK || iso_threads_close(job) != ISO_OK ||
        iso_finalize(job) != ISO_OK)
        return 1;
    return 0;
}
