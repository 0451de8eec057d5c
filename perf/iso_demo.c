/*
 * iso_demo.c - a pointer-rich index of a real file visits every rank of a job, and comes home.
 *
 * Rank 0 builds the index in a heap and sends it to rank 1, that one to rank 2, and so on around,
 * several times. Every rank follows every pointer, compares a checksum with what its sender found,
 * answers queries against the file, adds to the index, frees and allocates, and sends it on. The
 * results travel in the heap; rank 0 prints them.
 */
#include "demo/image.h"
#include "demo/index.h"
#include "demo/report.h"
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define QUERIES 500
#define SMALLEST_DEFAULT (4 << 20)

static const char *const default_files[] = {"/usr/share/dict/american-english-insane",
                                            "/usr/share/dict/words"};

static const char usage[] =
    "usage: iso_demo [-f FILE] [-r ROUNDS] [-q WORD] [--checkpoint IMAGE] [--restart IMAGE]\n"
    "Indexes the words of FILE in a heap and sends it around all ranks of the job; start it with\n"
    "iso_run -n RANKS iso_demo, or alone as a job of one rank.\n"
    "  -f FILE    the text (default: a large word list of the system)\n"
    "  -r ROUNDS  how often each rank is visited (default 3)\n"
    "  -q WORD    print in which lines of FILE WORD occurs\n"
    "  --checkpoint IMAGE  save the index when it is home, in this file\n"
    "  --restart IMAGE     begin with the index of an earlier job, of the same text\n"
    "  -h         this help\n";

typedef struct options {
    const char *file, *word;
    const char *checkpoint, *restart;
    unsigned rounds;
    bool damage; /* hidden: flip a byte on the way, to see that it is found */
} options_t;

typedef struct text {
    char *bytes;
    size_t length;
} text_t;

/* What travels with the heap in the user header. */
typedef struct note {
    summary_t sent;
    double start;
    uint64_t live;
    uint32_t hop;
} note_t;

typedef struct visit {
    iso_heap_t *heap; /* NULL: not here */
    note_t note;
    double arrived;
    uint64_t shipped;
    uint32_t from;
} visit_t;

static iso_job_t *job;
static uint32_t self;

_Noreturn static void fail(const char *what, const char *why)
{
    fprintf(stderr, "iso_demo: rank %u: %s: %s\n", self, what, why);
    exit(1);
}

static void check(iso_status_t status, const char *what)
{
    if (status != ISO_OK)
        fail(what, iso_status_string(status));
}

/* ---- the file ---- */

static const char *choose_file(void)
{
    struct stat st;
    for (size_t i = 0; i < sizeof default_files / sizeof *default_files; i++)
        if (stat(default_files[i], &st) == 0 && st.st_size >= SMALLEST_DEFAULT)
            return default_files[i];
    fail("no text", "no word list of 4 MiB or more is installed (Debian: apt-get install "
                    "wamerican-insane); name a file with -f");
}

static text_t read_text(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        fail(path, strerror(errno));
    if (!S_ISREG(st.st_mode)) /* a pipe would give each rank another part */
        fail(path, "not a regular file: every rank reads it for itself");
    FILE *file = fopen(path, "re");
    if (!file)
        fail(path, strerror(errno));
    text_t text = {NULL, 0};
    size_t room = 0, got; /* to the end, whatever st_size says: 0, for a file in /proc */
    do {
        room = room == 0 ? (size_t)st.st_size + 4096 : room * 2;
        text.bytes = realloc(text.bytes, room);
        if (!text.bytes)
            fail(path, "no memory to read it");
        got = fread(text.bytes + text.length, 1, room - text.length, file);
        text.length += got;
    } while (got > 0 && text.length == room);
    if (ferror(file))
        fail(path, strerror(errno));
    fclose(file);
    return text;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '\'' || (unsigned char)c >= 0x80;
}

/* The next word at or after *at, counting lines; its length, 0 at the end. */
static uint32_t next_word(const text_t *text, size_t *at, uint32_t *line)
{
    size_t i = *at;
    for (; i < text->length && !is_word(text->bytes[i]); i++)
        *line += text->bytes[i] == '\n';
    size_t start = i;
    while (i < text->length && is_word(text->bytes[i]))
        i++;
    *at = start;
    return (uint32_t)(i - start);
}

static index_t *build(iso_heap_t *heap, const text_t *text)
{
    index_t *index = index_create(heap);
    uint32_t line = 1, length;
    if (!index)
        fail("building the index", "no memory in the iso space");
    for (size_t at = 0; (length = next_word(text, &at, &line)) > 0; at += length)
        if (!index_add(heap, index, text->bytes + at, length, line))
            fail("building the index", "no memory in the iso space");
    if (index->places == 0)
        fail("building the index", "the file has no word");
    return index;
}

/* ---- a visit ---- */

static bool occurs(const index_t *index, const char *word, uint32_t length, uint32_t line)
{
    const node_t *node = index_find(index, word, length);
    const place_t *place = node ? node->places : NULL;
    while (place && place->line != line)
        place = place->next;
    return place != NULL;
}

/* Words of the file, evenly spread, from a start that differs from visit to visit. */
static void answer_queries(const index_t *index, const text_t *text, uint32_t hop)
{
    uint64_t every = index->places / QUERIES + 1, count = hop % every;
    uint32_t line = 1, length;
    for (size_t at = 0; (length = next_word(text, &at, &line)) > 0; at += length)
        if (count++ % every == 0 && !occurs(index, text->bytes + at, length, line))
            fail("a query", "a word of the file is not in the index");
}

/* Every visit leaves a word behind, which the later ones must find. */
static uint32_t visit_word(uint32_t hop, char word[32])
{
    return (uint32_t)snprintf(word, 32, "~visit-%u", hop);
}

static void add_to(iso_heap_t *heap, index_t *index, uint32_t hop)
{
    char word[32];
    for (uint32_t earlier = 0; earlier < hop; earlier++) {
        uint32_t length = visit_word(earlier, word);
        if (!occurs(index, word, length, earlier))
            fail("an earlier visit", "what it added is not in the index");
    }
    iso_free(index->scratch);
    index->scratch = iso_malloc(heap, 100000 + (size_t)hop * 1000);
    uint32_t length = visit_word(hop, word);
    if (!index->scratch || !index_add(heap, index, word, length, hop))
        fail("adding to the index", "no memory in the iso space");
    memset(index->scratch, (int)hop, 100000);
}

/* Everything is looked at twice: the first look also pays for mapping the pages here. */
static hop_t *look(const visit_t *visit, index_t *index)
{
    hop_t *hop = iso_calloc(visit->heap, 1, sizeof *hop);
    if (!hop)
        fail("writing the log", "no memory in the iso space");
    *hop = (hop_t){.previous = index->hops,
                   .number = visit->note.hop,
                   .from = visit->from,
                   .to = self,
                   .live = visit->note.live,
                   .shipped = visit->shipped,
                   .seconds = visit->arrived - visit->note.start};
    check(iso_same_node(job, visit->from, &hop->same_node), "iso_same_node");
    double *const seconds[] = {&hop->first, &hop->again};
    for (int i = 0; i < 2; i++) {
        double start = demo_now();
        summary_t found = index_check(visit->heap, index);
        *seconds[i] = demo_now() - start;
        if (found.fault)
            fail("checking every pointer", found.fault);
        if (found.checksum != visit->note.sent.checksum)
            fail("checking the contents", "the checksum is not the sender's");
    }
    index->hops = hop;
    return hop;
}

static void arrived(iso_job_t *of, const iso_arrival_t *arrival, void *arg)
{
    visit_t *visit = arg;
    (void)of;
    visit->arrived = demo_now();
    if (arrival->header_len != sizeof visit->note)
        fail("an arrival", "its header has not the length that was sent");
    memcpy(&visit->note, arrival->header, sizeof visit->note);
    visit->heap = arrival->heap;
    visit->shipped = arrival->bytes;
    visit->from = arrival->source;
}

static void send_on(visit_t *visit, const summary_t *summary, uint32_t hop, bool damage)
{
    iso_request_t *request;
    iso_heap_stats_t stats;
    iso_heap_t *heap = visit->heap;
    index_t *index = iso_heap_root(heap);
    check(iso_heap_stats(heap, &stats), "iso_heap_stats");
    note_t note = {.sent = *summary, .hop = hop, .live = stats.live_bytes};
    if (damage)
        index->root->child->text[0] ^= 1;
    visit->heap = NULL;
    note.start = demo_now();
    check(iso_migrate(heap, (self + 1) % iso_size(job), &note, sizeof note, &request),
          "iso_migrate");
    check(iso_wait(request), "iso_wait");
}

static void print_places(const index_t *index, const char *word)
{
    const node_t *node = index_find(index, word, (uint32_t)strlen(word));
    if (!node) {
        printf("'%s' does not occur\n", word);
        return;
    }
    printf("'%s' occurs in line", word);
    unsigned shown = 0;
    for (const place_t *place = node->places; place && shown < 20; place = place->next, shown++)
        printf(" %u", place->line);
    printf(shown == 20 ? " ...\n" : "\n");
}

/* ---- the tour ---- */

static options_t parse(int argc, char **argv)
{
    options_t options = {.rounds = 3};
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'},
                                          {"break", no_argument, NULL, 'b'},
                                          {"checkpoint", required_argument, NULL, 'c'},
                                          {"restart", required_argument, NULL, 's'},
                                          {0}};
    for (int c; (c = getopt_long(argc, argv, "f:r:q:h", longs, NULL)) != -1;) {
        char *end;
        switch (c) {
        case 'f':
            options.file = optarg;
            break;
        case 'q':
            options.word = optarg;
            break;
        case 'r':
            options.rounds = (unsigned)strtoul(optarg, &end, 10);
            if (*end || options.rounds < 1 || options.rounds > 1000) {
                fprintf(stderr, "iso_demo: -r %s: a number from 1 to 1000\n", optarg);
                exit(2);
            }
            break;
        case 'b':
            options.damage = true;
            break;
        case 'c':
            options.checkpoint = optarg;
            break;
        case 's':
            options.restart = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "iso_demo: what is '%s'?\n%s", argv[optind], usage);
        exit(2);
    }
    return options;
}

/* Rank 0 has an index: of an earlier job, or a new one. */
static index_t *begin(visit_t *visit, const text_t *text, const char *path)
{
    double start = demo_now();
    index_t *index = visit->heap ? iso_heap_root(visit->heap) : NULL;
    const char *how = index ? "in an index of an earlier job" : "indexed";
    if (!index) {
        check(iso_heap_create(job, &visit->heap), "iso_heap_create");
        index = build(visit->heap, text);
        iso_heap_set_root(visit->heap, index);
    }
    printf("%s: %lu words, %lu nodes, %s, %.0f ms\n", path, (unsigned long)index->places,
           (unsigned long)index->nodes, how, (demo_now() - start) * 1e3);
    return index;
}

/* The index that --restart names comes to the rank that saved it, which is rank 0. */
static void restore(visit_t *visit, const char *path)
{
    const char *fault;
    double start = demo_now();
    visit->heap = index_restore(job, &fault);
    if (fault)
        fail(path, fault);
    if (visit->heap)
        printf("%s: restored in %.0f ms\n", path, (demo_now() - start) * 1e3);
    check(iso_barrier(job), "iso_barrier");
}

static void save(const visit_t *visit, const char *path)
{
    double start = demo_now();
    check(index_save(job, visit->heap, path), path);
    printf("%s: saved in %.0f ms\n", path, (demo_now() - start) * 1e3);
}

static void start_tour(visit_t *visit, const text_t *text, const char *path, double *packing_p,
                       uint64_t *packed_p)
{
    const index_t *index = begin(visit, text, path);
    summary_t summary = index_check(visit->heap, index);
    if (summary.fault)
        fail("checking the new index", summary.fault);
    if (!index_pack_copy_unpack(job, index, &summary, packing_p, packed_p))
        fail("pack+copy+unpack", "no memory, or the result differs");
}

int main(int argc, char **argv)
{
    options_t options = parse(argc, argv);
    visit_t visit = {.heap = NULL};
    double packing = 0;
    uint64_t packed = 0;
    iso_params_t params;
    check(iso_params_init(&params), "iso_params_init");
    if (options.restart)
        params.images = options.restart;
    check(iso_init(&params, &job), "iso_init");
    self = iso_rank(job);
    iso_set_arrival(job, arrived, &visit);
    const char *path = options.file ? options.file : choose_file();
    text_t text = read_text(path);
    uint32_t ranks = iso_size(job), hops = ranks * options.rounds;
    if (options.restart)
        restore(&visit, options.restart);
    for (uint32_t hop = self; hop <= hops; hop += ranks) {
        if (hop == 0) {
            start_tour(&visit, &text, path, &packing, &packed);
        } else {
            while (!visit.heap)
                check(iso_progress_wait(job, -1), "waiting for the heap");
            look(&visit, iso_heap_root(visit.heap));
        }
        index_t *index = iso_heap_root(visit.heap);
        answer_queries(index, &text, hop);
        add_to(visit.heap, index, hop);
        if (hop == hops)
            break; /* home: rank 0 */
        summary_t summary = index_check(visit.heap, index);
        send_on(&visit, &summary, hop, options.damage && hop == 1 % hops);
    }
    check(iso_barrier(job), "iso_barrier");
    if (self == 0) {
        index_t *index = iso_heap_root(visit.heap);
        if (options.word)
            print_places(index, options.word);
        report_tour(index, ranks, packing, packed);
        if (options.checkpoint)
            save(&visit, options.checkpoint);
    }
    char transport[64], backing[64];
    snprintf(transport, sizeof transport, "%s", iso_transport_name(job));
    snprintf(backing, sizeof backing, "%s", iso_backing_name(job));
    check(iso_finalize(job), "iso_finalize");
    free(text.bytes);
    if (self == 0)
        printf("iso_demo: ok ranks %u transport %s backing %s hops %u\n", ranks, transport, backing,
               hops);
    if (fflush(stdout) != 0 || ferror(stdout))
        fail("writing the output", strerror(errno));
    return 0;
}
