/* signals.c - see signals.h. */
#include "core/signals.h"
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#define NUMBERS 65 /* of Linux: 1 to 64 */

typedef struct entry {
    unsigned users;
    bool in_chain; /* no user, but a handler in front of ours may call it */
    iso_signal_fn fn;
    struct sigaction before;
} entry_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static entry_t entries[NUMBERS];

int iso_signal_install(int number, iso_signal_fn fn, int flags)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | flags};
    int error = 0;
    if (number < 1 || number >= NUMBERS)
        return EINVAL;
    action.sa_sigaction = fn;
    entry_t *entry = &entries[number];
    pthread_mutex_lock(&lock);
    /* `before` is there before our handler can run */
    if (entry->users == 0 && !entry->in_chain &&
        (sigaction(number, NULL, &entry->before) != 0 || sigaction(number, &action, NULL) != 0))
        error = errno;
    else
        entry->users++;
    if (!error)
        entry->fn = fn;
    pthread_mutex_unlock(&lock);
    return error;
}

void iso_signal_remove(int number)
{
    struct sigaction now;
    entry_t *entry = &entries[number];
    pthread_mutex_lock(&lock);
    if (--entry->users == 0 && sigaction(number, NULL, &now) == 0) {
        entry->in_chain = !(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != entry->fn;
        if (!entry->in_chain)
            sigaction(number, &entry->before, NULL);
    }
    pthread_mutex_unlock(&lock);
}

bool iso_signal_chain(int number, siginfo_t *info, void *context, bool *ignored_p)
{
    const struct sigaction *before = &entries[number].before;
    *ignored_p = !(before->sa_flags & SA_SIGINFO) && before->sa_handler == SIG_IGN;
    if (before->sa_flags & SA_SIGINFO)
        before->sa_sigaction(number, info, context);
    else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
        before->sa_handler(number);
    else
        return false;
    return true;
}

void iso_signal_default(int number)
{
    struct sigaction action = {.sa_flags = 0};
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, NULL);
}
