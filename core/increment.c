/* increment.c - see increment.h. */
#include "core/increment.h"
#include "core/replace.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct iso_increment_run {
    uint64_t address, length;
    const iso_image_run_t *where;
    const uint64_t *pages; /* their checksums */
} run_t;

static const char *name_in(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

/* Both are in one folder, however that is called in either. */
static bool in_one_folder(const char *path, const char *real)
{
    struct stat folders[2];
    const char *paths[] = {path, real};
    for (int i = 0; i < 2; i++) {
        const size_t length = (size_t)(name_in(paths[i]) - paths[i]);
        char *folder = length ? strndup(paths[i], length) : strdup(".");
        const bool there = folder && stat(folder, &folders[i]) == 0;
        free(folder);
        if (!there)
            return false;
    }
    return is_same(&folders[0], &folders[1]);
}

/* Is what has this path the image, or one of those that it refers to? By their names, and as files, whatever they are called. */
static bool is_of(const iso_image_t *since, const char *path)
{
    struct stat file, own;
    bool same = strcmp(name_in(path), name_in(since->real)) == 0;
    for (uint64_t i = 0; i < since->header.parent_count && !same; i++)
        same = strcmp(name_in(path), since->tables.parents[i].name) == 0;
    if (same || lstat(path, &file) != 0)
        return same;
    for (uint64_t i = 0; i <= since->header.parent_count && !same; i++)
        same = fstat(since->fds[i], &own) == 0 && is_same(&own, &file);
    return same;
}

/* Can an image at `path` refer to this one, and to those that it refers to? */
static iso_status_t check_names(const iso_image_t *since, const iso_logger_t *logger,
                                const char *path)
{
    if (!in_one_folder(path, since->real) || strlen(name_in(since->real)) >= ISO_IMAGE_NAME) {
        iso_log(logger, ISO_LOG_ERROR,
                "image %s cannot be an increment to %s (%s): they must be in one folder, and the "
                "name be shorter than %d bytes",
                path, since->path, since->real, ISO_IMAGE_NAME);
        return ISO_ERR_INVALID;
    }
    char *part = iso_replace_part_of(path);
    if (!part) {
        iso_log(logger, ISO_LOG_ERROR, "image %s: no memory for its name", path);
        return ISO_ERR_NO_MEMORY;
    }
    const bool replaces = is_of(since, path) || is_of(since, part);
    free(part);
    if (!replaces)
        return ISO_OK;
    iso_log(logger, ISO_LOG_ERROR,
            "image %s cannot be an increment to %s (%s): it would replace what it needs: give it "
            "another name",
            path, since->path, since->real);
    return ISO_ERR_INVALID;
}

static int by_address(const void *a, const void *b)
{
    const run_t *left = a, *right = b;
    return left->address < right->address ? -1 : left->address > right->address;
}

static iso_status_t list_runs(iso_increment_t *increment)
{
    const iso_image_t *since = increment->since;
    const uint64_t *pages = since->tables.pages;
    increment->runs = malloc((since->header.run_count + 1) * sizeof *increment->runs);
    if (!increment->runs)
        return ISO_ERR_NO_MEMORY;
    increment->run_count = since->header.run_count;
    for (uint64_t i = 0; i < increment->run_count; i++) {
        const iso_image_run_t *run = &since->tables.runs[i];
        increment->runs[i] = (run_t){run->address, run->length, run, pages};
        pages += run->length / ISO_IMAGE_PAGE;
    }
    qsort(increment->runs, increment->run_count, sizeof *increment->runs, by_address);
    return ISO_OK;
}

iso_status_t iso_increment_open(iso_increment_t *increment, const iso_logger_t *logger,
                                const char *path, const char *since)
{
    *increment = (iso_increment_t){.since = NULL};
    if (!since)
        return ISO_OK;
    iso_status_t status = iso_image_open_for(logger, since, &increment->since);
    if (status == ISO_OK)
        status = check_names(increment->since, logger, path);
    if (status == ISO_OK && increment->since->header.parent_count == ISO_IMAGE_PARENTS_MAX) {
        iso_log(logger, ISO_LOG_INFO,
                "image %s: %s needs %u others already, which is the most: all pages are written",
                path, since, ISO_IMAGE_PARENTS_MAX);
        iso_increment_close(increment);
        return ISO_OK;
    }
    if (status == ISO_OK)
        status = list_runs(increment);
    if (status != ISO_OK)
        iso_increment_close(increment);
    return status;
}

void iso_increment_close(iso_increment_t *increment)
{
    iso_image_close(increment->since);
    free(increment->runs);
    *increment = (iso_increment_t){.since = NULL};
}

uint64_t iso_increment_parents(const iso_increment_t *increment,
                               iso_image_parent_t parents[ISO_IMAGE_PARENTS_MAX])
{
    const iso_image_t *since = increment->since;
    if (!since)
        return 0;
    memset(&parents[0], 0, sizeof parents[0]);
    parents[0].check = since->header.check;
    memcpy(parents[0].name, name_in(since->real), strlen(name_in(since->real)));
    for (uint64_t i = 0; i < since->header.parent_count; i++)
        parents[i + 1] = since->tables.parents[i];
    return since->header.parent_count + 1;
}

/* The last run that begins at the address or before it. */
static uint64_t find_run(const iso_increment_t *increment, uint64_t address)
{
    uint64_t low = 0, high = increment->run_count;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (increment->runs[middle].address <= address)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bool iso_increment_at(iso_increment_t *increment, uint64_t address, uint64_t *checksum_p,
                      uint64_t *file_p, uint64_t *offset_p)
{
    if (increment->run_count == 0)
        return false;
    const run_t *run = &increment->runs[increment->at];
    if (address - run->address >= run->length) {
        increment->at = find_run(increment, address);
        run = &increment->runs[increment->at];
    }
    const uint64_t offset = address - run->address;
    if (offset >= run->length)
        return false;
    *checksum_p = run->pages[offset / ISO_IMAGE_PAGE];
    *file_p = run->where->file + 1;
    *offset_p = run->where->offset + offset;
    return true;
}

bool iso_increment_find(iso_increment_t *increment, uint64_t address, uint64_t checksum,
                        uint64_t *file_p, uint64_t *offset_p)
{
    uint64_t there, file, offset;
    if (!iso_increment_at(increment, address, &there, &file, &offset) || there != checksum)
        return false;
    *file_p = file;
    *offset_p = offset;
    return true;
}

bool iso_increment_has(iso_increment_t *increment, uint64_t heap, uint64_t epoch)
{
    const iso_image_t *since = increment->since;
    for (uint32_t i = 0; since && i < since->header.heap_count; i++) {
        const iso_image_entry_t *entry = &since->tables.heaps[increment->heap_at];
        increment->heap_at = (increment->heap_at + 1) % since->header.heap_count;
        if (entry->heap == heap)
            return entry->epoch == epoch;
    }
    return false;
}
