/*
 * machine.h - what the machine and this process's limits are, as far as they matter to the library,
 * and what to change about them. Linux only.
 */
#ifndef ISO_PERF_MACHINE_H
#define ISO_PERF_MACHINE_H

#include <stdint.h>

/* "16 TiB", "1.5 GiB", "17 bytes". Returns buf, which has room for MACHINE_BYTES_TEXT. */
#define MACHINE_BYTES_TEXT 32
const char *machine_bytes_text(uint64_t bytes, char *buf);

/* Prints kernel, processors, memory, limits: a line each, to standard output. */
void machine_print(void);

/* Prints a line "advice: ..." for each thing that costs speed or will fail. */
void machine_advise(void);

#endif
