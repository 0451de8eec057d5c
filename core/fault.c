/* fault.c - see fault.h. */
#include "core/fault.h"
#include "core/heap.h"
#include "core/job.h"
#include "core/protect.h"
#include "core/signals.h"
#include "core/stack.h"
#include "core/stack_guard.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- a line of text without stdio, which is not safe in a handler ---- */

typedef struct line {
    char text[512];
    size_t length;
} line_t;

static void add_part(line_t *line, const char *text, size_t most)
{
    for (; most > 0 && *text && line->length < sizeof line->text - 1; text++, most--)
        line->text[line->length++] = *text;
}

static void add(line_t *line, const char *text)
{
    add_part(line, text, SIZE_MAX);
}

static void add_number(line_t *line, uint64_t value, unsigned base)
{
    char digits[24];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = "0123456789abcdef"[value % base];
    while (value /= base);
    add(line, base == 16 ? "0x" : "");
    add(line, &digits[at]);
}

static void write_out(const line_t *line)
{
    for (size_t done = 0; done < line->length;) {
        ssize_t n = write(STDERR_FILENO, line->text + done, line->length - done);
        if (n <= 0 && errno != EINTR)
            return;
        done += n > 0 ? (size_t)n : 0;
    }
}

/* ---- what the fault is ---- */

static void add_heap(line_t *line, const char *before, uintptr_t heap, const char *after)
{
    add(line, before);
    add_number(line, heap, 16);
    add(line, after);
}

static bool is_overflow(const iso_job_row_t *row, uintptr_t address)
{
    return iso_stack_guard_has(row->job, address);
}

/* Of the stack whose guard this is; what is read of it is in pages that do not fault. */
static void add_overflow(line_t *line, uintptr_t address)
{
    iso_slot_t *slot = iso_slot_of((const void *)address);
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address is what a fault comes with */
    char *block = (char *)(address & ~(uintptr_t)(ISO_UNIT_SIZE - 1));
    uint64_t stack_at;
    if (block == (char *)slot) /* a large block begins here: its header is in the slot before */
        stack_at = ((const iso_slot_t *)(block - ISO_SLOT_SIZE))->run_stack;
    else
        stack_at = slot->spans[iso_unit_of(block)].stack;
    const iso_stack_t *stack = (const iso_stack_t *)(block + stack_at);
    add(line, "overflow of the stack of '");
    add_part(line, stack->name, sizeof stack->name); /* whatever was written there */
    add(line, "', which has ");
    add_number(line, (uintptr_t)stack - (uintptr_t)stack->low, 10);
    add(line, " bytes from ");
    add_number(line, (uintptr_t)stack->low, 16);
    add(line, " on: give it more");
}

static void add_cause(line_t *line, const iso_job_row_t *row, uintptr_t address, int number)
{
    uintptr_t slot = (address - row->base) >> ISO_SLOT_SHIFT;
    uintptr_t word = atomic_load_explicit(&row->table[slot], memory_order_relaxed);
    uintptr_t former = atomic_load_explicit(&row->job->guards.heap_of[slot], memory_order_relaxed);
    const iso_heap_t *heap = word ? iso_heap_at_slot(iso_slots_word_heap_slot(word)) : NULL;
    if (heap)
        add_heap(line, ", in a slot of heap ", (uintptr_t)heap, ": ");
    else if (former)
        add_heap(line, ", in a slot that heap ", former, " had: ");
    else
        add(line, ", in a slot of no heap at this rank: ");
    if (is_overflow(row, address))
        add_overflow(line, address);
    else if (number == SIGBUS)
        add(line,
            "there is no memory for the page (a limit of the machine or the container, or the "
            "memory object was cut)");
    else if (former && !word)
        add(line, "a large block that was freed is used (use after free)");
    else if (word && iso_protect_has(row->job, heap, address))
        add(line, "the page is protected (iso_protect)");
    else if (word)
        add(line, "its memory is here; something outside the library has protected or unmapped it");
    else
        add(line, "the heap has left or the block was freed, and its memory is gone");
    add(line, "\n");
}

static void explain(int number, uintptr_t address)
{
    const iso_job_row_t *row = iso_job_row_of((void *)address);
    line_t line = {.length = 0};
    if (!row || !row->job || !(row->job->params.fault_handler || is_overflow(row, address)))
        return;
    add(&line, "[");
    add_number(&line, row->job->rank, 10);
    add(&line, "] isomalloc: FATAL ");
    add(&line, number == SIGBUS ? "SIGBUS at " : "SIGSEGV at ");
    add_number(&line, address, 16);
    add_cause(&line, row, address, number);
    write_out(&line);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    int error = errno;
    bool is_fault = info->si_code > 0, ignored; /* else somebody sent it */
    if (is_fault)
        explain(number, (uintptr_t)info->si_addr);
    if (!iso_signal_chain(number, info, context, &ignored) && (is_fault || !ignored)) {
        iso_signal_default(number); /* the access is made again, and ends the process */
        if (!is_fault)
            raise(number);
    }
    errno = error;
}

static const int numbers[] = {SIGSEGV, SIGBUS};

static iso_status_t install(iso_job_t *job)
{
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int error = iso_signal_install(numbers[i], on_fault, SA_ONSTACK);
        if (error) {
            iso_log(&job->logger, ISO_LOG_ERROR,
                    "no handler for signal %d, which ISO_FAULT_HANDLER and stacks want: %s",
                    numbers[i], strerror(error));
            while (i-- > 0)
                iso_signal_remove(numbers[i]);
            return ISO_ERR_SYSTEM;
        }
    }
    job->has_fault_handler = true;
    return ISO_OK;
}

iso_status_t iso_fault_open(iso_job_t *job)
{
    return job->params.fault_handler ? install(job) : ISO_OK;
}

iso_status_t iso_fault_want_stacks(iso_job_t *job)
{
    iso_job_lock(job);
    iso_status_t status = job->has_fault_handler ? ISO_OK : install(job);
    iso_job_unlock(job);
    return status;
}

void iso_fault_close(iso_job_t *job)
{
    for (unsigned i = 0; job->has_fault_handler && i < sizeof numbers / sizeof *numbers; i++)
        iso_signal_remove(numbers[i]);
    job->has_fault_handler = false;
}
