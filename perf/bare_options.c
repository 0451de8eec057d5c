/* bare_options.c - the options, which are those of iso_perftest where they mean the same. */
#include "bare.h"
#include "perftest/number.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static void print_usage(const bare_network_t *network, FILE *stream)
{
    fprintf(stream,
            "usage: %s [OPTIONS]\n"
            "%s"
            "  -s BYTES   size of a put; K, M and G may follow (8)\n"
            "  -n COUNT   iterations (by size)\n"
            "  -w COUNT   warm-up iterations (a tenth)\n"
            "  -O COUNT   puts in flight, each with memory of its own (as many as are 16 MiB, 1 to "
            "16)\n"
            "  -L         latency: put, flush and message to and fro, half of the round trip\n"
            "  -H BYTES   size of the message of -L (128)\n"
            "%s"
            "  -R RANK    percentile that is called typical (50)\n"
            "  -f         print final numbers only\n"
            "  -v         print CSV\n"
            "  -N         print numbers with thousands apart\n"
            "  -h         this help\n",
            network->program, network->purpose, network->knows_errors ? network->of_error : "");
}

static size_t clamp(size_t value, size_t least, size_t most)
{
    return value < least ? least : value > most ? most : value;
}

static void number(const bare_network_t *network, int letter, size_t least, size_t most,
                   size_t *value_p)
{
    if (number_parse(optarg, least, most, value_p))
        return;
    fprintf(stderr, "%s: -%c %s: not a number from %zu to %zu (-h lists the options)\n",
            network->program, letter, optarg, least, most);
    exit(2);
}

static void read_percentile(const bare_network_t *network, bare_options_t *options)
{
    char *end;
    options->format.rank = strtod(optarg, &end);
    if (*optarg >= '0' && *optarg <= '9' && !*end && options->format.rank <= 100)
        return;
    fprintf(stderr, "%s: -R %s: not a percentile from 0 to 100 (-h lists the options)\n",
            network->program, optarg);
    exit(2);
}

void bare_options_read(const bare_network_t *network, int argc, char **argv,
                       bare_options_t *options)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {0}};
    bool warm_up_given = false;
    *options = (bare_options_t){.size = 8, .message = 128, .format.rank = 50};
    for (int c; (c = getopt_long(argc, argv,
                                 network->knows_errors ? "s:n:w:O:LH:R:fvNhe" : "s:n:w:O:LH:R:fvNh",
                                 longs, NULL)) != -1;) {
        switch (c) {
        case 's':
            number(network, c, 1, (size_t)1 << 36, &options->size);
            break;
        case 'n':
            number(network, c, 1, 10000000, &options->iterations);
            break;
        case 'w':
            number(network, c, 0, 10000000, &options->warm_up);
            warm_up_given = true;
            break;
        case 'O':
            number(network, c, 1, 1024, &options->outstanding);
            break;
        case 'H':
            number(network, c, 1, 4096, &options->message);
            break;
        case 'L':
            options->latency = true;
            break;
        case 'e':
            options->errors_handled = true;
            break;
        case 'R':
            read_percentile(network, options);
            break;
        case 'f':
            options->format.final_only = true;
            break;
        case 'v':
            options->format.csv = true;
            break;
        case 'N':
            options->format.thousands = true;
            break;
        default:
            print_usage(network, c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: %s: no option (-h lists them)\n", network->program, argv[optind]);
        exit(2);
    }
    if (options->iterations == 0)
        options->iterations = clamp(((size_t)4 << 30) / options->size, 21, 10000);
    if (!warm_up_given)
        options->warm_up = clamp(options->iterations / 10, 3, 1000);
    if (options->outstanding == 0)
        options->outstanding = clamp(((size_t)16 << 20) / options->size, 1, 16);
    if (options->latency)
        options->outstanding = 1;
    if (options->outstanding > ((size_t)1 << 38) / options->size) {
        fprintf(stderr, "%s: -s %zu -O %zu: more memory than there can be\n", network->program,
                options->size, options->outstanding);
        exit(2);
    }
}
