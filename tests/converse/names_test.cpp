// What runtimes that are written for Charm++ 8 call, as its headers declare it: that they compile.
#include "tests/unit/support.hpp"
#include <converse.h>
#include <memory-isomalloc.h>
#include <pup_c.h>
#include <type_traits>

namespace {

template <typename Type, typename Declared> constexpr bool is(Declared /*function*/)
{
    return std::is_same_v<Type *, Declared>;
}

static_assert(is<int()>(CmiIsomallocEnabled));
static_assert(is<int(void *)>(CmiIsomallocInRange));
static_assert(is<CmiIsomallocContext(int, int)>(CmiIsomallocContextCreate));
static_assert(is<void(CmiIsomallocContext)>(CmiIsomallocContextDelete));
static_assert(is<void(pup_er, CmiIsomallocContext *)>(CmiIsomallocContextPup));
static_assert(is<void(CmiIsomallocContext)>(CmiIsomallocContextEnableRandomAccess));
static_assert(is<void(CmiIsomallocContext)>(CmiIsomallocContextJustMigrated));
static_assert(is<void(CmiIsomallocContext, int)>(CmiIsomallocEnableRDMA));
static_assert(is<CmiIsomallocRegion(CmiIsomallocContext)>(CmiIsomallocContextGetUsedExtent));
static_assert(is<void *(CmiIsomallocContext, size_t)>(CmiIsomallocContextMalloc));
static_assert(is<void *(CmiIsomallocContext, size_t, size_t)>(CmiIsomallocContextMallocAlign));
static_assert(is<void *(CmiIsomallocContext, size_t, size_t)>(CmiIsomallocContextCalloc));
static_assert(is<void *(CmiIsomallocContext, void *, size_t)>(CmiIsomallocContextRealloc));
static_assert(is<void(CmiIsomallocContext, void *)>(CmiIsomallocContextFree));
static_assert(is<size_t(CmiIsomallocContext, void *)>(CmiIsomallocContextGetLength));
static_assert(is<void(CmiIsomallocContext, void *, size_t, int)>(CmiIsomallocContextProtect));
static_assert(is<void *(CmiIsomallocContext, size_t)>(CmiIsomallocContextPermanentAlloc));
static_assert(
    is<void *(CmiIsomallocContext, size_t, size_t)>(CmiIsomallocContextPermanentAllocAlign));
static_assert(is<CmiIsomallocContext(CthThread)>(CmiIsomallocGetThreadContext));
static_assert(is<int()>(CthMigratable));
static_assert(is<CthThread(pup_er, CthThread)>(CthPup));
static_assert(is<CthThread(CthVoidFn, void *, int, CmiIsomallocContext)>(CthCreateMigratable));
static_assert(std::is_same_v<CthVoidFn, void (*)(void *)>);

// of the manual
static_assert(is<void *(int)>(CmiIsomalloc));
static_assert(is<void(void *)>(CmiIsomallocFree));
static_assert(is<void(pup_er, void **)>(CmiIsomallocPup));
static_assert(is<int(void *)>(CmiIsomallocLength));

static_assert(is<pup_er()>(pup_new_sizer) && is<pup_er(void *)>(pup_new_toMem) &&
              is<pup_er(const void *)>(pup_new_fromMem) && is<pup_er()>(pup_new_network_sizer) &&
              is<pup_er(void *)>(pup_new_network_pack) &&
              is<pup_er(const void *)>(pup_new_network_unpack) && is<pup_er(pup_er)>(pup_new_fmt) &&
              is<void(pup_er)>(pup_destroy));
static_assert(is<void(pup_er)>(pup_fmt_sync_begin_object) &&
              is<void(pup_er)>(pup_fmt_sync_end_object) &&
              is<void(pup_er)>(pup_fmt_sync_begin_array) &&
              is<void(pup_er)>(pup_fmt_sync_end_array) && is<void(pup_er)>(pup_fmt_sync_item));
static_assert(is<int(pup_er)>(pup_isPacking) && is<int(pup_er)>(pup_isUnpacking) &&
              is<int(pup_er)>(pup_isSizing) && is<int(pup_er)>(pup_isDeleting) &&
              is<int(pup_er)>(pup_isUserlevel) && is<int(pup_er)>(pup_isCheckpoint) &&
              is<int(pup_er)>(pup_isMigration) && is<char *(pup_er)>(pup_typeString));
static_assert(is<void(pup_er, unsigned, const char *)>(pup_syncComment) &&
              is<void(pup_er, const char *)>(pup_comment) && is<size_t(pup_er)>(pup_size) &&
              is<uint16_t(size_t)>(pup_encodeSize) && is<size_t(uint16_t)>(pup_decodeSize));
static_assert(is<void(pup_er, void *, size_t)>(pup_bytes));
#define ITEM(name, type)                                  \
    static_assert(is<void(pup_er, type *)>(pup_##name) && \
                  is<void(pup_er, type *, size_t)>(pup_##name##s));
ITEM(char, char)
ITEM(short, short)
ITEM(int, int)
ITEM(long, long)
ITEM(uchar, unsigned char)
ITEM(ushort, unsigned short)
ITEM(uint, unsigned)
ITEM(ulong, unsigned long)
ITEM(float, float)
ITEM(double, double)
ITEM(pointer, void *)
ITEM(int8, int64_t)
ITEM(size_t, size_t)

} // namespace

TEST_CASE("structs of Converse's can be made and copied by their members")
{
    CmiIsomallocContext none{};
    none.opaque = nullptr;
    const CmiIsomallocContext copy = none;
    const CmiIsomallocRegion region = {&none, &none + 1};
    REQUIRE(copy.opaque == nullptr);
    REQUIRE(region.end != region.start);
}
