/*
 * pup_network.c - pup_ers to and from a form of memory that is the same on every kind of machine: of each item the most significant byte is
 * first, and what has no fixed size in C has that of 64-bit Linux. So it takes as many bytes as an item has here. Heaps are
 * bytes, and of machines of one kind.
 */
#include "core/pup.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(short) == 2 && sizeof(int) == 4 && sizeof(long) == 8 && sizeof(size_t) == 8 &&
                   sizeof(void *) == 8 && CHAR_BIT == 8,
               "items have these sizes on the network");

static void pass(unsigned char *to, const unsigned char *from, size_t items, size_t size)
{
    if (size == 1 || __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) {
        memcpy(to, from, items * size);
        return;
    }
    for (size_t item = 0; item < items; item++, to += size, from += size)
        for (size_t i = 0; i < size; i++)
            to[i] = from[size - 1 - i];
}

static iso_status_t count(void *context, void *data, size_t items, size_t size, iso_pup_type_t type)
{
    (void)context, (void)data, (void)items, (void)size, (void)type; /* pup.c does */
    return ISO_OK;
}

static iso_status_t pack(void *context, void *data, size_t items, size_t size, iso_pup_type_t type)
{
    iso_pup_memory_t *memory = context;
    (void)type;
    pass(memory->at, data, items, size);
    memory->at += items * size;
    return ISO_OK;
}

static iso_status_t unpack(void *context, void *data, size_t items, size_t size,
                           iso_pup_type_t type)
{
    iso_pup_memory_t *memory = context;
    (void)type;
    pass(data, memory->at, items, size);
    memory->at += items * size;
    return ISO_OK;
}

static const iso_pup_kind_t sizer = {.struct_size = sizeof sizer,
                                     .name = "network sizer",
                                     .direction = ISO_PUP_SIZING,
                                     .items = count};
static const iso_pup_kind_t packer = {.struct_size = sizeof packer,
                                      .name = "to the network's form",
                                      .direction = ISO_PUP_PACKING,
                                      .items = pack,
                                      .destroy = free};
static const iso_pup_kind_t unpacker = {.struct_size = sizeof unpacker,
                                        .name = "from the network's form",
                                        .direction = ISO_PUP_UNPACKING,
                                        .items = unpack,
                                        .destroy = free};

pup_er pup_new_network_sizer(void)
{
    return iso_pup_new(&sizer, NULL);
}

pup_er pup_new_network_pack(void *buffer)
{
    return iso_pup_new_in_memory(&packer, buffer, SIZE_MAX);
}

pup_er pup_new_network_unpack(const void *buffer)
{
    return iso_pup_new_in_memory(&unpacker, buffer, SIZE_MAX);
}

/* ---- sizes in two bytes ------------------------------------------------------------------------ */

#define DIGITS 10 /* bits of a size that are kept; the others are how far they are shifted */

uint16_t pup_encodeSize(size_t s)
{
    unsigned shift = 0;
    while (s >> shift >= (size_t)1 << DIGITS)
        shift++;
    return (uint16_t)(shift << DIGITS | s >> shift);
}

size_t pup_decodeSize(uint16_t a)
{
    const unsigned shift = a >> DIGITS;
    return (size_t)(a & ((1u << DIGITS) - 1)) << shift;
}
