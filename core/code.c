/* code.c - see code.h. */
#include "core/code.h"
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <isomalloc/stack.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static iso_code_t *ours;

/* FNV-1a, a word at a time where that is all that counts. */
static uint64_t mix(uint64_t digest, uint64_t word)
{
    return (digest ^ word) * 0x100000001b3u;
}

static uint64_t mix_bytes(uint64_t digest, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    for (; length >= sizeof(uint64_t); at += sizeof(uint64_t), length -= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        digest = mix(digest, word);
    }
    for (; length > 0; at++, length--)
        digest = mix(digest, *at);
    return digest;
}

#define DIGEST_START 0xcbf29ce484222325u

/* ---- one object ---- */

/* The description of the build id in these notes, NULL: there is none. */
static const unsigned char *build_id(const unsigned char *notes, size_t length, size_t *length_p)
{
    while (length >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        memcpy(&note, notes, sizeof note);
        size_t name = (note.n_namesz + 3u) & ~3u, description = (note.n_descsz + 3u) & ~3u;
        if (name > length || description > length || sizeof note + name + description > length)
            return NULL;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof "GNU" &&
            memcmp(notes + sizeof note, "GNU", sizeof "GNU") == 0) {
            *length_p = note.n_descsz;
            return notes + sizeof note + name;
        }
        notes += sizeof note + name + description;
        length -= sizeof note + name + description;
    }
    return NULL;
}

static uint64_t identify(const struct dl_phdr_info *info)
{
    size_t length;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_NOTE || part->p_align > 4) /* with 8 there are other notes */
            continue;
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address is what the loader gives */
        const unsigned char *notes = (const unsigned char *)(info->dlpi_addr + part->p_vaddr);
        const unsigned char *id = build_id(notes, part->p_memsz, &length);
        if (id)
            return mix_bytes(DIGEST_START, id, length);
    }
    uint64_t digest = DIGEST_START;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_flags & PF_X && part->p_flags & PF_R)
            /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
            digest =
                mix_bytes(digest, (const void *)(info->dlpi_addr + part->p_vaddr), part->p_filesz);
    }
    return digest;
}

static void set_name(iso_code_object_t *object, const char *path)
{
    const char *last = strrchr(path, '/');
    snprintf(object->name, sizeof object->name, "%s", last ? last + 1 : path);
}

static bool holds(const struct dl_phdr_info *info, uintptr_t address)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && address - (info->dlpi_addr + part->p_vaddr) < part->p_memsz)
            return true;
    }
    return false;
}

static bool is_vdso(const struct dl_phdr_info *info)
{
    const uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);
    return vdso && holds(info, vdso);
}

/* ---- the processor ---- */

static uint64_t features(void)
{
    uint64_t digest =
        mix(mix(DIGEST_START, getauxval(AT_HWCAP)), getauxval(AT_HWCAP2)); /* all of them, on Arm */
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) /* c and d; a and b say which processor, and its number */
        digest = mix(digest, (uint64_t)c << 32 | d);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
        digest = mix(mix(digest, b), (uint64_t)c << 32 | d);
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        digest = mix(digest, a);
#endif
    return digest;
}

/* ---- the list ---- */

static int count_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)info;
    (void)size;
    ++*(size_t *)arg;
    return 0;
}

static int add_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    size_t room = *(const size_t *)arg;
    (void)size;
    if (is_vdso(info) || ours->count >= room) /* another thread loads something */
        return 0;
    iso_code_object_t *object = &ours->objects[ours->count++];
    object->base = info->dlpi_addr;
    object->id = identify(info);
    set_name(object,
             info->dlpi_name && *info->dlpi_name ? info->dlpi_name : program_invocation_short_name);
    return 0;
}

static void make(void)
{
    size_t room = 0;
    dl_iterate_phdr(count_object, &room);
    room++; /* the processor */
    ours = calloc(1, sizeof *ours + room * sizeof *ours->objects);
    if (!ours)
        return;
    ours->objects[0].id = features();
    set_name(&ours->objects[0], "processor");
    ours->count = 1;
    dl_iterate_phdr(add_object, &room);
    ours->digest = mix_bytes(DIGEST_START, ours->objects, ours->count * sizeof *ours->objects);
}

iso_status_t iso_code_open(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make);
    return ours ? ISO_OK : ISO_ERR_NO_MEMORY;
}

const iso_code_t *iso_code(void)
{
    return ours;
}

size_t iso_code_size(const iso_code_t *code)
{
    return sizeof *code + code->count * sizeof *code->objects;
}

typedef struct question {
    uintptr_t address;
    bool found, listed;
} question_t;

static int ask(struct dl_phdr_info *info, size_t size, void *arg)
{
    question_t *question = arg;
    (void)size;
    question->found = holds(info, question->address);
    for (size_t i = 0; question->found && !question->listed && i < ours->count; i++)
        question->listed =
            ours->objects[i].base == info->dlpi_addr && ours->objects[i].id == identify(info);
    return question->found;
}

bool iso_code_is_compared(const void *code)
{
    question_t question = {.address = (uintptr_t)code};
    if (ours)
        dl_iterate_phdr(ask, &question);
    return question.listed;
}

/* ---- what differs ---- */

/* What has to be alike, each with what comes before it. */
typedef enum likeness {
    BY_NAME,
    BY_CONTENTS,
    BY_ADDRESS
} likeness_t;

static const iso_code_object_t *find(const iso_code_t *code, const iso_code_object_t *like,
                                     likeness_t likeness)
{
    for (size_t i = 0; i < code->count; i++) {
        const iso_code_object_t *object = &code->objects[i];
        if (strncmp(object->name, like->name, sizeof like->name) == 0 &&
            (likeness < BY_CONTENTS || object->id == like->id) &&
            (likeness < BY_ADDRESS || object->base == like->base))
            return object;
    }
    return NULL;
}

/* The first object of `one` that `two` has nothing like. */
static const iso_code_object_t *first_other(const iso_code_t *one, const iso_code_t *two,
                                            likeness_t likeness)
{
    for (size_t i = 0; i < one->count; i++)
        if (!find(two, &one->objects[i], likeness))
            return &one->objects[i];
    return NULL;
}

/* Causes before consequences: a library more moves the others. */
void iso_code_differ(const iso_code_t *other, char *text, size_t size)
{
    const iso_code_object_t *there, *here;
    if (other->count > 0 && other->objects[0].id != ours->objects[0].id)
        snprintf(text, size,
                 "the processors have different features: migrate between like ones only");
    else if ((there = first_other(other, ours, BY_NAME)) != NULL)
        snprintf(text, size, "'%.47s' is loaded there only: load the same libraries in all ranks",
                 there->name);
    else if ((here = first_other(ours, other, BY_NAME)) != NULL)
        snprintf(text, size, "'%.47s' is loaded here only: load the same libraries in all ranks",
                 here->name);
    else if ((there = first_other(other, ours, BY_CONTENTS)) != NULL)
        snprintf(text, size, "'%.47s' there is not the '%.47s' here: install the same everywhere",
                 there->name, there->name);
    else if ((there = first_other(other, ours, BY_ADDRESS)) != NULL)
        snprintf(
            text, size,
            "'%.47s' lies at 0x%" PRIx64 " there and at 0x%" PRIx64
            " here: start the ranks without randomisation of addresses, by iso_run --no-aslr or "
            "setarch -R, or call iso_restart_without_aslr first in main",
            there->name, there->base, find(ours, there, BY_CONTENTS)->base);
    else
        snprintf(text, size, "the same objects are loaded in another order");
}
