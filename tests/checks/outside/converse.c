/* A program as Converse's users write it, compiled against the installed library. */
#include <converse.h>
#include <pup_c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    void *block = CmiIsomalloc(100), *before = block;
    pup_er p = pup_new_sizer();
    CmiIsomallocPup(p, &block);
    void *buffer = malloc((size_t)pup_size(p));
    pup_destroy(p);
    memset(block, 1, 100);
    p = pup_new_toMem(buffer);
    CmiIsomallocPup(p, &block);
    pup_destroy(p);
    CmiIsomallocFree(block);
    p = pup_new_fromMem(buffer);
    CmiIsomallocPup(p, &block);
    pup_destroy(p);
    free(buffer);
    if (block != before || CmiIsomallocInRange(block) != 1)
        return 1;
    printf("moved and back: %d bytes\n", CmiIsomallocLength(block));
    return 0;
}
