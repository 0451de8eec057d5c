/*
 * pup_memory.c - pup_ers that count, and those to and from memory.
 *
 * Items lie one behind the other, unaligned, as Converse has them.
 */
#include "core/log.h"
#include "core/pup.h"
#include <stdlib.h>
#include <string.h>

/* ---- counting ---- */

/* pup.c counts. */
static iso_status_t count(void *context, void *data, size_t items, size_t size, iso_pup_type_t type)
{
    (void)context, (void)data, (void)items, (void)size, (void)type;
    return ISO_OK;
}

static const iso_pup_kind_t sizer = {
    .struct_size = sizeof sizer, .name = "sizer", .direction = ISO_PUP_SIZING, .items = count};

pup_er pup_new_sizer(void)
{
    return iso_pup_new(&sizer, NULL);
}

/* ---- memory ---- */

static iso_status_t refuse(const iso_pup_memory_t *memory, size_t bytes, const char *what)
{
    iso_logger_t logger = iso_logger_default();
    iso_log(&logger, ISO_LOG_ERROR, "pup: %zu bytes are to be %s, and %zu are left", bytes, what,
            memory->left);
    return ISO_ERR_INVALID;
}

static iso_status_t to_memory(void *context, void *data, size_t items, size_t size,
                              iso_pup_type_t type)
{
    iso_pup_memory_t *memory = context;
    size_t bytes = items * size;
    (void)type;
    if (bytes > memory->left) {
        refuse(memory, bytes, "packed");
        return ISO_ERR_LIMIT;
    }
    memcpy(memory->at, data, bytes);
    memory->at += bytes;
    memory->left -= bytes;
    return ISO_OK;
}

static iso_status_t from_memory(void *context, void *data, size_t items, size_t size,
                                iso_pup_type_t type)
{
    iso_pup_memory_t *memory = context;
    size_t bytes = items * size;
    (void)type;
    if (bytes > memory->left)
        return refuse(memory, bytes, "unpacked");
    memcpy(data, memory->at, bytes);
    memory->at += bytes;
    memory->left -= bytes;
    return ISO_OK;
}

static const iso_pup_kind_t packer = {.struct_size = sizeof packer,
                                      .name = "to memory",
                                      .direction = ISO_PUP_PACKING,
                                      .items = to_memory,
                                      .destroy = free};
static const iso_pup_kind_t unpacker = {.struct_size = sizeof unpacker,
                                        .name = "from memory",
                                        .direction = ISO_PUP_UNPACKING,
                                        .items = from_memory,
                                        .destroy = free};

pup_er iso_pup_new_in_memory(const iso_pup_kind_t *kind, const void *buffer, size_t size)
{
    iso_pup_memory_t *memory = malloc(sizeof *memory);
    if (memory)
        *memory = (iso_pup_memory_t){(unsigned char *)(uintptr_t)buffer, size};
    return iso_pup_new_own(kind, memory);
}

pup_er iso_pup_new_to_memory(void *buffer, size_t size)
{
    return iso_pup_new_in_memory(&packer, buffer, size);
}

pup_er iso_pup_new_from_memory(const void *buffer, size_t size)
{
    return iso_pup_new_in_memory(&unpacker, buffer, size);
}

pup_er pup_new_toMem(void *buffer)
{
    return iso_pup_new_in_memory(&packer, buffer, SIZE_MAX);
}

pup_er pup_new_fromMem(const void *buffer)
{
    return iso_pup_new_in_memory(&unpacker, buffer, SIZE_MAX);
}
