/* trial.c - see trial.h. */
#include "core/trial.h"
#include "core/exchange.h"
#include "core/job.h"
#include "core/os.h"
#include "core/quantity.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct probe {
    iso_record_t head;
    uint32_t rkey_len; /* 0: this rank has no word to be put to */
    uint32_t unused;
    uint64_t word; /* its address */
    unsigned char rkey[ISO_TRANSPORT_RKEY_MAX];
} probe_t;

typedef struct verdict {
    iso_record_t head;
    uint32_t rank;            /* whose reason it is */
    char why[ISO_LINK_QUOTE]; /* empty: all is well */
} verdict_t;

/* ---- what is tried ---- */

/* NULL: the transport is not there, is tried as another, or its reach is no question of the host's. */
static iso_link_t *link_of(const iso_job_t *job, int which)
{
    iso_link_t *link = which == ISO_TRIAL_NET            ? job->net_link
                       : job->node_link != job->net_link ? job->node_link
                                                         : NULL;
    bool tried = link && link->caps.shares_host && link->caps.one_sided && !link->caps.needs_fd;
    return tried ? link : NULL;
}

uint32_t iso_trial_wanted(const iso_job_t *job)
{
    return (link_of(job, ISO_TRIAL_NODE) ? 1u << ISO_TRIAL_NODE : 0) |
           (link_of(job, ISO_TRIAL_NET) ? 1u << ISO_TRIAL_NET : 0);
}

/* In a ring of all ranks, or of the node's. */
static uint32_t neighbour_of(const iso_job_t *job, int which)
{
    const iso_node_t *node = &job->node;
    if (which == ISO_TRIAL_NET)
        return (job->rank + 1) % job->size;
    for (uint32_t i = 0; i < node->rank_count; i++)
        if (node->ranks[i] > job->rank)
            return node->ranks[i];
    return node->leader;
}

/* Not what anybody else may have put to this address. */
static uint64_t word_of(const iso_job_t *job)
{
    uint64_t word;
    memcpy(&word, job->cookie, sizeof word);
    return word | 1;
}

/* ---- the trial ---- */

static void on_put_end(iso_completion_t *completion, iso_status_t status)
{
    iso_trial_t *trial = (iso_trial_t *)completion;
    trial->put = status;
    trial->done = true;
}

static iso_status_t offer_word(iso_job_t *job, int which, iso_region_t **region_p, probe_t *probe)
{
    const iso_link_t *link = link_of(job, which);
    iso_trial_t *trial = &job->trials[which];
    size_t page = iso_os_page_size(), len = sizeof probe->rkey;
    trial->words = iso_os_table_map(page);
    if (!trial->words)
        return ISO_ERR_NO_MEMORY;
    trial->words[1] = word_of(job);
    iso_memory_t memory = {trial->words, page, -1, 0};
    iso_status_t status = link->ops->mem_register(link->tp, &memory, region_p);
    if (status == ISO_OK)
        status = link->ops->rkey_pack(*region_p, probe->rkey, &len);
    if (status != ISO_OK)
        return status;
    probe->word = (uintptr_t)&trial->words[0];
    probe->rkey_len = (uint32_t)len;
    return ISO_OK;
}

static iso_status_t put_word(iso_job_t *job, int which, iso_endpoint_t *ep, iso_region_t *region,
                             const probe_t *probe)
{
    const iso_link_t *link = link_of(job, which);
    iso_trial_t *trial = &job->trials[which];
    iso_rkey_t *rkey;
    iso_status_t status = link->ops->rkey_unpack(ep, probe->rkey, probe->rkey_len, &rkey);
    if (status != ISO_OK)
        return status;
    trial->completion.fn = on_put_end;
    status = link->ops->put(ep, &trial->words[1], sizeof *trial->words, region, probe->word, rkey,
                            &trial->completion);
    double deadline = iso_os_now() + job->params.timeout;
    while (status == ISO_INPROGRESS && !trial->done && iso_os_now() < deadline)
        link->ops->progress(link->tp);
    if (status == ISO_INPROGRESS)
        status = trial->done ? trial->put : ISO_ERR_TIMED_OUT;
    if (status !=
        ISO_ERR_TIMED_OUT) /* else the put has the key still, until the transport closes */
        link->ops->rkey_destroy(rkey);
    return status;
}

static iso_status_t try_neighbour(iso_job_t *job, int which, iso_region_t *region,
                                  const probe_t *probe)
{
    const iso_link_t *link = link_of(job, which);
    iso_card_t card;
    iso_endpoint_t *ep;
    uint32_t rank = neighbour_of(job, which);
    iso_status_t status = iso_peer_card(job, rank, &card);
    if (status == ISO_OK)
        status = link->ops->connect(link->tp, rank, iso_card_address(&card, which),
                                    card.lengths[which], &ep);
    if (status != ISO_OK)
        return status;
    status = put_word(job, which, ep, region, probe);
    if (status != ISO_ERR_TIMED_OUT)
        link->ops->disconnect(ep);
    return status;
}

/* why: set to what went wrong at this rank. */
static iso_status_t try_puts(iso_job_t *job, int which, char *why)
{
    iso_link_t *link = link_of(job, which);
    probe_t mine = {.head = {.magic = ISO_RECORD_MAGIC}};
    iso_region_t *region = NULL;
    probe_t probe = {0};
    if (link)
        link->quote = why;
    iso_status_t tried = link ? offer_word(job, which, &region, &mine) : ISO_OK;
    iso_status_t status =
        iso_exchange_one(job, &mine, sizeof mine, neighbour_of(job, which), &probe);
    if (status == ISO_OK && link && tried == ISO_OK && probe.rkey_len > 0 &&
        probe.rkey_len <= sizeof probe.rkey)
        tried = try_neighbour(job, which, region, &probe);
    if (region && tried != ISO_ERR_TIMED_OUT)
        link->ops->mem_deregister(region);
    if (link)
        link->quote = NULL;
    if (link && tried != ISO_OK && !why[0])
        snprintf(why, ISO_LINK_QUOTE, "%s: a put to rank %" PRIu32 " ends with: %s",
                 link->ops->name, neighbour_of(job, which), iso_status_string(tried));
    return status;
}

/* Said to have arrived: is it there? */
static iso_status_t check_words(const iso_job_t *job)
{
    for (int which = 0; which < ISO_TRIALS; which++) {
        const volatile uint64_t *words = job->trials[which].words;
        if (!words || words[0] == word_of(job))
            continue;
        iso_log(&job->logger, ISO_LOG_ERROR,
                "transport %s says that a put to anonymous memory of this rank has ended, and "
                "nothing has arrived: set ISO_BACKING=private",
                link_of(job, which)->ops->name);
        return ISO_ERR_SYSTEM;
    }
    return ISO_OK;
}

/* ---- the verdict ---- */

static void try_mapping(iso_job_t *job, char *why)
{
    const iso_link_t *links[2] = {job->node_link, job->net_link};
    for (int i = 0; i < 2; i++)
        if (links[i] && links[i]->caps.needs_fd) {
            snprintf(why, ISO_LINK_QUOTE,
                     "transport %s reaches memory only through a memory object",
                     links[i]->ops->name);
            return;
        }
    int error = iso_space_map_anon(&job->space, job->params.core_dump);
    if (error)
        snprintf(why, ISO_LINK_QUOTE, "mapping %s of anonymous memory: %s%s",
                 ISO_SIZE(job->space.size), strerror(error),
                 error == ENOMEM ? " (vm.overcommit_memory=2? set ISO_SPACE_SIZE to less)" : "");
}

static void say(const iso_job_t *job, uint32_t rank, const char *why)
{
    bool wished = job->params.backing == ISO_BACKING_ANON;
    iso_log(&job->logger, wished && job->rank == 0 ? ISO_LOG_WARN : ISO_LOG_INFO,
            "backing private instead of anon, at all ranks: rank %" PRIu32 ": %.*s", rank,
            ISO_LINK_QUOTE - 1, why);
}

static void combine_verdicts(void *into_record, const void *from_record)
{
    verdict_t *into = into_record;
    const verdict_t *from = from_record;
    if (into->why[0] || !from->why[0])
        return;
    into->rank = from->rank;
    memcpy(into->why, from->why, sizeof into->why);
}

iso_status_t iso_trial_run(iso_job_t *job, uint32_t wanted, bool anon, bool *good_p)
{
    verdict_t mine = {.head = {.magic = ISO_RECORD_MAGIC}, .rank = job->rank};
    iso_status_t status = ISO_OK;
    for (int which = 0; which < ISO_TRIALS && status == ISO_OK; which++)
        if (wanted >> which & 1)
            status = try_puts(job, which, mine.why);
    if (status != ISO_OK)
        return status;
    if (anon && !mine.why[0])
        try_mapping(job, mine.why);
    verdict_t total;
    status = iso_exchange(job, &mine, sizeof mine, combine_verdicts, &total, NULL);
    if (status != ISO_OK)
        return status;
    bool good = !total.why[0];
    if (!good)
        say(job, total.rank, total.why);
    if (good)
        status = check_words(job);
    *good_p = good;
    return status;
}

void iso_trial_close(iso_trial_t trials[ISO_TRIALS])
{
    for (int which = 0; which < ISO_TRIALS; which++) {
        iso_os_table_unmap(trials[which].words, iso_os_page_size());
        trials[which].words = NULL;
    }
}
