/*
 * signals.h - handlers of the library's, each in front of the one that the program had.
 *
 * A handler is installed once a process, however many jobs want it, and goes with the last of them; one
 * that the program has put in front of it meanwhile stays, and so does what that one calls: ours.
 */
#ifndef ISO_CORE_SIGNALS_H
#define ISO_CORE_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*iso_signal_fn)(int number, siginfo_t *info, void *context);

/* flags: SA_* besides SA_SIGINFO. The same function for a number each time. 0 or errno. */
int iso_signal_install(int number, iso_signal_fn fn, int flags);
void iso_signal_remove(int number);

/* In a handler: calls the one before it, with what it expects. false: there is none; *ignored_p when the
 * program ignores the signal. */
bool iso_signal_chain(int number, siginfo_t *info, void *context, bool *ignored_p);
/* In a handler: the default action from now on. */
void iso_signal_default(int number);

#ifdef __cplusplus
}
#endif

#endif
