/*
 * exceptions.c - what C++'s run time keeps for each thread of the system, wherever that run time comes from: of the program,
 * or of a library that is loaded when threads have long been running, by whatever way.
 *
 * A switch must not cost a look for it. Where it is, for a thread of the system, never changes: it is remembered. As long as there
 * is none, what is remembered is the library that was loaded last: while none comes after it in the loader's list, there
 * is nothing to look for. It is held meanwhile, so that what is looked at is there: if the program closes it, it goes when
 * the next one has been loaded. To look for it takes some 3 KiB of the stack that it is done on: of who resumes, in general
 * the system's.
 */
#include "core/thread/thread.h"
#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

typedef iso_exceptions_t *(*globals_fn)(void);

/* Weak: where the program was linked with the run time as an archive, this is why its linker lets others see it. */
extern iso_exceptions_t *__cxa_get_globals(void) __attribute__((weak));

static const char name_of_globals[] = "__cxa_get_globals";

/* Of a thread of the system. */
typedef struct known {
    iso_exceptions_t *globals;   /* NULL: there was no run time when it was last looked for */
    const struct link_map *last; /* loaded last then, and held; NULL: not known */
} known_t;

static __thread known_t known __attribute__((tls_model("initial-exec")));

/* ---- the library that is held, until the thread of the system ends ---- */

static pthread_key_t held_key;
static bool has_key;

static void let_go(void *library)
{
    dlclose(library);
}

static void make_key(void)
{
    has_key = pthread_key_create(&held_key, let_go) == 0;
}

static void hold(known_t *of, void *library)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct link_map *map = NULL;
    pthread_once(&once, make_key);
    void *before = has_key ? pthread_getspecific(held_key) : NULL;
    of->last = NULL;
    if (library && has_key && pthread_setspecific(held_key, library) == 0) {
        if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0)
            of->last = map;
        library = before;
    }
    if (library)
        dlclose(library);
}

/* ---- looked for ---- */

/* Names of what is loaded, in the order of the loader's list. */
typedef struct names {
    char **all;
    size_t count, room;
    bool failed;
} names_t;

static int add_name(struct dl_phdr_info *info, size_t size, void *arg)
{
    names_t *names = arg;
    (void)size;
    if (names->count == names->room) {
        const size_t room = 2 * names->room + 32;
        char **all = realloc(names->all, room * sizeof(char *));
        names->failed = !all;
        if (!all)
            return 1;
        names->all = all;
        names->room = room;
    }
    char *name = strdup(info->dlpi_name ? info->dlpi_name : "");
    names->failed = !name;
    names->all[names->count] = name;
    names->count += !names->failed;
    return names->failed;
}

static void *open_loaded(const char *name)
{
    if (*name && !strchr(name, '/')) /* the vDSO: no file's, which would be looked for */
        return NULL;
    return dlopen(*name ? name : NULL, RTLD_LAZY | RTLD_NOLOAD);
}

/* The run time's function; NULL: there is none, and *last_p is the library that was loaded last, to be closed. */
static globals_fn look_in(const names_t *names, void **last_p)
{
    globals_fn found = NULL;
    void *library = NULL;
    for (size_t i = 0; i < names->count && !found; i++) {
        if (library)
            dlclose(library);
        library = open_loaded(names->all[i]);
        void *symbol = library ? dlsym(library, name_of_globals) : NULL;
        memcpy(&found, &symbol, sizeof found);
    }
    dlerror(); /* that it is not in this one and that one */
    *last_p = library;
    return found;
}

static globals_fn look(known_t *of)
{
    names_t names = {.failed = false};
    void *last = NULL;
    globals_fn found = __cxa_get_globals;
    if (!found) {
        dl_iterate_phdr(add_name, &names);
        if (!names.failed)
            found = look_in(&names, &last);
        for (size_t i = 0; i < names.count; i++)
            free(names.all[i]);
        free(names.all);
    }
    if (found) {
        hold(of, NULL); /* and `last`, whose function it is, stays for good */
        return found;
    }
    hold(of, last);
    return NULL;
}

static __attribute__((noinline)) iso_exceptions_t *look_again(known_t *of)
{
    globals_fn found = look(of);
    if (found)
        of->globals = found();
    return of->globals;
}

/* Not inlined: the thread that asks may go on in another thread of the system. */
__attribute__((noinline)) iso_exceptions_t *iso_exceptions_of_system(void)
{
    __asm__ volatile("");
    if (known.globals)
        return known.globals;
    if (known.last && !__atomic_load_n(&known.last->l_next, __ATOMIC_RELAXED))
        return NULL;
    return look_again(&known);
}
