/* registrations.c - preloaded: counts what libibverbs is asked to register, by whomever. */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

extern uint64_t test_registrations(void);
extern void *ibv_reg_mr(void *pd, void *address, size_t length, int access);
extern void *ibv_reg_mr_iova2(void *pd, void *address, size_t length, uint64_t iova,
                              unsigned access);

static atomic_uint_fast64_t count;

uint64_t test_registrations(void)
{
    return atomic_load(&count);
}

/* Whoever calls has loaded it, and for itself only. */
static void *next(const char *name)
{
    void *verbs = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void *function = verbs != NULL ? dlsym(verbs, name) : NULL;

    if (function == NULL)
        abort();
    atomic_fetch_add(&count, 1);
    return function;
}

void *ibv_reg_mr(void *pd, void *address, size_t length, int access)
{
    void *(*real)(void *, void *, size_t, int) = NULL;

    *(void **)&real = next("ibv_reg_mr");
    return real(pd, address, length, access);
}

void *ibv_reg_mr_iova2(void *pd, void *address, size_t length, uint64_t iova, unsigned access)
{
    void *(*real)(void *, void *, size_t, uint64_t, unsigned) = NULL;

    *(void **)&real = next("ibv_reg_mr_iova2");
    return real(pd, address, length, iova, access);
}
