/*
 * options.c - see options.h.
 *
 * Words are read in two places, the command line and the lines of a batch, into the same struct `words`:
 * which options were given, and their values. A plan is made of a line's words, else the command line's,
 * else the test's defaults.
 */
#include "options.h"
#include "number.h"
#include <getopt.h>
#include <isomalloc/isomalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LINE_WORDS 32
#define BATCHES_MOST 32
#define SIZE_MOST ((size_t)1 << 46)
#define ITERATIONS_MOST ((size_t)10000000)
#define OUTSTANDING_MOST ((size_t)1024)
#define THREADS_MOST ((size_t)1024)
#define IN_FLIGHT ((size_t)16 << 20) /* bytes that -O is chosen for, unless given */
#define IN_FLIGHT_MOST ((size_t)16)
#define ITERATIONS_LEAST ((size_t)21)
#define WARM_UP_LEAST ((size_t)3)
#define WARM_UP_MOST ((size_t)1000)

static const char command_letters[] = "t:s:n:w:c:O:D:T:R:fvNp:b:x:h";
static const char line_letters[] = "t:s:n:w:O:D:T:";

static const char usage_head[] =
    "usage: iso_perftest [OPTIONS]                waits for a client on this host, and serves it\n"
    "       iso_perftest HOST [OPTIONS]           measures between here and the server on HOST\n"
    "       iso_run -n 2 iso_perftest [OPTIONS]   the same between two ranks of a launcher's\n"
    "A test of one rank that is named runs at once, without a server or launcher.\n"
    "\n"
    "  -t TEST      what to measure (migrate_lat):\n";
static const char usage_tail[] =
    "  -s BYTES     size of message, heap or block; K, M and G may follow\n"
    "  -n COUNT     iterations (by size)\n"
    "  -w COUNT     warm-up iterations before them (a tenth, 3 to 1000); the first ever, cold, has "
    "a\n"
    "               row of its own\n"
    "  -c LIST      run on these processors only, ',' between\n"
    "  -O COUNT     puts or heaps in flight (as many as are 16 MiB, 1 to 16)\n"
    "  -D LAYOUT    what a heap is filled with: block (one), or nodes:BYTES (linked)\n"
    "  -T COUNT     threads (1)\n"
    "  -x NAME      transport: any module that is there (iso_info lists them). Ranks are then "
    "nodes\n"
    "               of their own, unless ISO_NODE_SIZE says otherwise\n"
    "  -b FILE      run the tests of a batch file: on each line a name, which is a test's unless "
    "-t\n"
    "               follows, and any of -t -s -n -w -O -D -T; several files: one after the other\n"
    "  -R RANK      percentile that is called typical (50)\n"
    "  -p PORT      TCP port of server and client (13337)\n"
    "  -f           print final numbers only\n"
    "  -v           print CSV\n"
    "  -N           print numbers with thousands apart\n"
    "  -h           this help\n"
    "Settings are ISO_*, see iso_info -c: ISO_BACKING=private ISO_NODE_SIZE=1 measures puts,\n"
    "ISO_BACKING=shared handing over.\n";

static void print_usage(FILE *out)
{
    fputs(usage_head, out);
    for (size_t i = 0; i < tests_count; i++)
        fprintf(out, "       %15s  %s\n", tests[i].name, tests[i].help);
    fputs(usage_tail, out);
}

/* ---- words ---- */

/* Of a test, as given; `given` has a bit for each letter of line_letters that was. */
typedef struct words {
    const char *where; /* for messages: "" or "FILE:LINE: " */
    uint32_t given;
    char test[OPTIONS_LABEL];
    size_t size, iterations, warm_up, outstanding, threads, node_size;
} words_t;

static uint32_t bit(int letter)
{
    const char *at = strchr(line_letters, letter);
    return at ? 1u << (at - line_letters) : 0;
}

static bool reject(const words_t *words, int letter, const char *value, const char *what)
{
    fprintf(stderr, "iso_perftest: %s-%c %s: %s (-h lists the options)\n", words->where, letter,
            value, what);
    return false;
}

static bool number(const words_t *words, int letter, size_t least, size_t most, size_t *value_p)
{
    char what[96];
    if (number_parse(optarg, least, most, value_p))
        return true;
    snprintf(what, sizeof what, "not a number from %zu to %zu", least, most);
    return reject(words, letter, optarg, what);
}

static const test_t *find_test(const char *name)
{
    for (size_t i = 0; i < tests_count; i++)
        if (strcmp(tests[i].name, name) == 0)
            return &tests[i];
    return NULL;
}

/* An option that a test may have, its value in optarg. */
static bool take(words_t *words, int letter)
{
    words->given |= bit(letter);
    switch (letter) {
    case 't':
        if (!find_test(optarg))
            return reject(words, letter, optarg, "no such test");
        snprintf(words->test, sizeof words->test, "%s", optarg);
        return true;
    case 's':
        return number(words, letter, 1, SIZE_MOST, &words->size);
    case 'n':
        return number(words, letter, 1, ITERATIONS_MOST, &words->iterations);
    case 'w':
        return number(words, letter, 0, ITERATIONS_MOST, &words->warm_up);
    case 'O':
        return number(words, letter, 1, OUTSTANDING_MOST, &words->outstanding);
    case 'T':
        return number(words, letter, 1, THREADS_MOST, &words->threads);
    default: /* D */
        words->node_size = 0;
        if (strcmp(optarg, "block") == 0 ||
            (strncmp(optarg, "nodes:", 6) == 0 &&
             number_parse(optarg + 6, sizeof(void *), ISO_SLOT_SIZE, &words->node_size)))
            return true;
        return reject(words, letter, optarg, "say block, or nodes:BYTES with 8 to 2097152 bytes");
    }
}

static size_t clamp(size_t value, size_t least, size_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* A plan from a line's words, the command line's, and the test's defaults. Options that mean nothing to
 * the test are refused where they stand beside it; from the command line of a batch they are for others. */
static bool decide(const words_t *line, const words_t *command, const char *label, plan_t *plan)
{
    const test_t *test = find_test(*line->test ? line->test : label);
    if (!test) {
        fprintf(stderr, "iso_perftest: %s%s: no such test (-h lists them)\n", line->where, label);
        return false;
    }
    for (const char *c = line_letters; *c; c++)
        if (*c != ':' && *c != 't' && line->given & bit(*c) && !strchr(test->options, *c)) {
            fprintf(stderr, "iso_perftest: %s-%c means nothing to the test %s\n", line->where, *c,
                    test->name);
            return false;
        }
#define GIVEN(letter, field, otherwise)              \
    (line->given & bit(letter)      ? line->field    \
     : command->given & bit(letter) ? command->field \
                                    : (otherwise))
    *plan = (plan_t){.test = test};
    snprintf(plan->label, sizeof plan->label, "%s", label);
    plan->size = GIVEN('s', size, test->size);
    plan->node_size = GIVEN('D', node_size, test->node_size);
    plan->iterations =
        GIVEN('n', iterations,
              clamp(test->volume / (plan->size ? plan->size : 1),
                    test->iterations < ITERATIONS_LEAST ? test->iterations : ITERATIONS_LEAST,
                    test->iterations));
    plan->warm_up = GIVEN('w', warm_up, clamp(plan->iterations / 10, WARM_UP_LEAST, WARM_UP_MOST));
    plan->outstanding = GIVEN('O', outstanding,
                              clamp(IN_FLIGHT / (plan->size ? plan->size : 1), 1, IN_FLIGHT_MOST));
    plan->threads = GIVEN('T', threads, 1);
#undef GIVEN
    if (!strchr(test->options, 'O'))
        plan->outstanding = 1;
    if (!strchr(test->options, 'D'))
        plan->node_size = test->node_size;
    if (plan->node_size > plan->size && strchr(test->options, 'D')) {
        fprintf(stderr,
                "iso_perftest: %sa heap of %zu bytes (-s) has no room for a node of %zu (-D)\n",
                line->where, plan->size, plan->node_size);
        return false;
    }
    return true;
}

static bool append(options_t *options, const plan_t *plan)
{
    plan_t *more = realloc(options->plans, (options->plan_count + 1) * sizeof *more);
    if (!more) {
        fputs("iso_perftest: no memory for the list of tests\n", stderr);
        return false;
    }
    options->plans = more;
    more[options->plan_count++] = *plan;
    return true;
}

/* ---- batches ---- */

/* One line, which is cut into words: "LABEL [OPTION]...". */
static bool read_line(options_t *options, const words_t *command, char *line, const char *where)
{
    words_t words = {.where = where};
    char *argv[LINE_WORDS + 1], *rest = NULL;
    int argc = 0;
    for (char *word = strtok_r(line, " \t\r", &rest); word; word = strtok_r(NULL, " \t\r", &rest)) {
        if (argc == LINE_WORDS) {
            fprintf(stderr, "iso_perftest: %smore than %d words\n", where, LINE_WORDS);
            return false;
        }
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    if (argc == 0 || argv[0][0] == '#')
        return true;
    if (strlen(argv[0]) >= OPTIONS_LABEL || strchr(argv[0], ',')) {
        fprintf(stderr, "iso_perftest: %s%s: a name has less than %d letters, and no ','\n", where,
                argv[0], OPTIONS_LABEL);
        return false;
    }
    optind = 0; /* starts anew */
    opterr = 0;
    for (int c; (c = getopt(argc, argv, line_letters)) != -1;) {
        if (c == '?') {
            fprintf(
                stderr,
                "iso_perftest: %s-%c: no option of a test, or without its value; those that may "
                "stand here are -t -s -n -w -O -D -T\n",
                where, optopt);
            return false;
        }
        if (!take(&words, c))
            return false;
    }
    if (optind < argc) {
        fprintf(stderr, "iso_perftest: %s%s: no option\n", where, argv[optind]);
        return false;
    }
    plan_t plan;
    return decide(&words, command, argv[0], &plan) && append(options, &plan);
}

/* All lines of a text, which is cut up. */
static bool read_batch(options_t *options, const words_t *command, char *text, const char *name)
{
    char where[256];
    unsigned number_of_line = 0;
    const size_t before = options->plan_count;
    for (char *line = text, *end; line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        snprintf(where, sizeof where, "%s:%u: ", name, ++number_of_line);
        if (!read_line(options, command, line, where))
            return false;
    }
    if (options->plan_count == before)
        fprintf(stderr, "iso_perftest: %s: no test in it\n", name);
    return options->plan_count > before;
}

/* A whole file; NULL: said why. The caller frees. */
static char *read_file(const char *name)
{
    FILE *file = fopen(name, "re");
    struct stat st;
    if (!file || fstat(fileno(file), &st) != 0 || S_ISDIR(st.st_mode)) {
        fprintf(stderr, "iso_perftest: -b %s: %s\n", name, file ? "not a file" : "cannot be read");
        if (file)
            fclose(file);
        return NULL;
    }
    char *text = NULL;
    size_t len = 0, room = 0;
    for (size_t got = 1; got > 0; len += got) {
        if (len + 1 >= room) {
            char *more = realloc(text, room = room ? 2 * room : 4096);
            if (!more) {
                len = 0;
                break;
            }
            text = more;
        }
        got = fread(text + len, 1, room - 1 - len, file);
    }
    if (text)
        text[len] = '\0';
    fclose(file);
    return text;
}

/* ---- the command line ---- */

static bool read_processors(options_t *options, const words_t *words)
{
    char list[1024], *rest = NULL;
    if (strlen(optarg) >= sizeof list)
        return reject(words, 'c', optarg, "too long");
    memcpy(list, optarg, strlen(optarg) + 1);
    CPU_ZERO(&options->processors);
    for (char *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        size_t processor;
        if (!number_parse(word, 0, CPU_SETSIZE - 1, &processor))
            return reject(words, 'c', word, "not the number of a processor");
        CPU_SET(processor, &options->processors);
        options->pinned = true;
    }
    return options->pinned || reject(words, 'c', optarg, "name a processor");
}

static bool read_percentile(options_t *options, const words_t *words)
{
    char *end;
    double rank = strtod(optarg, &end);
    if (*optarg < '0' || *optarg > '9' || *end || !(rank >= 0 && rank <= 100))
        return reject(words, 'R', optarg, "not a percentile from 0 to 100");
    options->format.rank = rank;
    return true;
}

/* The files of -b, in the order in which they were named. */
typedef struct batches {
    const char *names[BATCHES_MOST];
    size_t count;
} batches_t;

/* An option that is not a test's. */
static bool take_general(options_t *options, const words_t *words, int letter, batches_t *batches)
{
    switch (letter) {
    case 'c':
        return read_processors(options, words);
    case 'R':
        return read_percentile(options, words);
    case 'p':
        return number(words, 'p', 1, 65535, &options->port);
    case 'x':
        if (!*optarg || strlen(optarg) >= OPTIONS_WORD || strpbrk(optarg, " \n\t/"))
            return reject(words, 'x', optarg, "not the name of a transport");
        snprintf(options->transport, sizeof options->transport, "%s", optarg);
        return true;
    case 'b':
        if (batches->count == BATCHES_MOST)
            return reject(words, 'b', optarg, "more than 32 batch files");
        batches->names[batches->count++] = optarg;
        return true;
    case 'f':
        options->format.final_only = true;
        return true;
    case 'v':
        options->format.csv = true;
        return true;
    default: /* N */
        options->format.thousands = true;
        return true;
    }
}

static bool plan_batch(options_t *options, const words_t *words, const char *name)
{
    char *text = read_file(name);
    bool good = text && read_batch(options, words, text, name);
    free(text);
    return good;
}

static bool plan_command(options_t *options, const words_t *words, const batches_t *batches)
{
    const words_t none = {.where = ""};
    bool good = true;
    plan_t plan;
    options->named = batches->count > 0 || words->given & bit('t');
    if (batches->count == 0)
        return decide(words, &none, *words->test ? words->test : "migrate_lat", &plan) &&
               append(options, &plan);
    if (words->given & bit('t')) {
        fprintf(stderr, "iso_perftest: -t %s and -b %s: name tests in one way\n", words->test,
                batches->names[0]);
        return false;
    }
    for (size_t i = 0; good && i < batches->count; i++)
        good = plan_batch(options, words, batches->names[i]);
    return good;
}

void options_read(options_t *options, int argc, char **argv)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {0}};
    words_t words = {.where = ""};
    batches_t batches = {.count = 0};
    bool good = true;
    *options = (options_t){.port = 13337, .format.rank = 50};
    for (int c; good && (c = getopt_long(argc, argv, command_letters, longs, NULL)) != -1;) {
        if (c == 'h') {
            print_usage(stdout);
            exit(0);
        }
        if (c == '?') { /* said already */
            print_usage(stderr);
            exit(2);
        }
        good = bit(c) ? take(&words, c) : take_general(options, &words, c, &batches);
    }
    if (good && optind < argc)
        options->host = argv[optind++];
    if (good && optind < argc) {
        fprintf(stderr, "iso_perftest: %s: one HOST is enough (-h lists the options)\n",
                argv[optind]);
        good = false;
    }
    if (!good || !plan_command(options, &words, &batches))
        exit(2);
}

void options_free(options_t *options)
{
    free(options->plans);
    options->plans = NULL;
    options->plan_count = 0;
}

/* ---- client to server ---- */

static void tell_plan(FILE *out, const plan_t *plan)
{
    fprintf(out, "%s -t %s", plan->label, plan->test->name);
    for (const char *c = plan->test->options; *c; c++) {
        if (*c == 'D' && plan->node_size == 0)
            fputs(" -D block", out);
        else if (*c == 'D')
            fprintf(out, " -D nodes:%zu", plan->node_size);
        else
            fprintf(out, " -%c %zu", *c,
                    *c == 's'   ? plan->size
                    : *c == 'n' ? plan->iterations
                    : *c == 'w' ? plan->warm_up
                    : *c == 'O' ? plan->outstanding
                                : plan->threads);
    }
    fputc('\n', out);
}

char *options_tell(const options_t *options)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    fprintf(out, "%s\n", options->transport);
    for (size_t i = 0; i < options->plan_count; i++)
        tell_plan(out, &options->plans[i]);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

bool options_hear(options_t *options, const char *text)
{
    const words_t none = {.where = ""};
    size_t name = strcspn(text, "\n");
    if (name >= OPTIONS_WORD || !text[name]) {
        fputs("iso_perftest: what the client wants is not understood: take the same release at "
              "both ends\n",
              stderr);
        return false;
    }
    memcpy(options->transport, text, name);
    options->transport[name] = '\0';
    options_free(options);
    char *lines = strdup(text + name + 1);
    bool good = lines && read_batch(options, &none, lines, "the client's tests");
    free(lines);
    return good;
}
