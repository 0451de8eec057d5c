/*
 * of_provider.c - which provider of libfabric carries the job, and what it is like.
 *
 * What is needed: reliable datagrams, messages in order, remote writes whose completion can mean that the
 * bytes are in the peer's memory. Among those that have it, devices come first, then what the software
 * providers are good for; ISO_OFI_PROVIDER narrows the choice. All ranks have to come to the same one: the
 * address blob says which, and of_connect complains.
 *
 * shm is taken only when it is named. It reaches only this host, where the library has a better way, and the
 * one of libfabric 1.17 keeps a spin lock for each process in memory that they share: what is killed just while
 * it puts a message into another's queue leaves it locked, and a third process that wants to send there then
 * spins for ever. Nothing outside of shm can help that; of_cma.c and of_msg.c keep the moment short.
 *
 * one_sided is said only of what was tried with a stopped target: verbs, over Soft-RoCE, and shm, whose puts are
 * ours. tcp, net, sockets and udp are not: the target's CPU copies. Other devices have not been tried, so they are
 * not called so.
 */
#include "ofi.h"
#include <stdlib.h>
#include <string.h>

/* Software, the best first; all others are taken for devices, which pin what is registered. */
static const char *const software[] = {"tcp", "net", "sockets", "udp", "shm", NULL};

#define MR_MODES \
    (FI_MR_LOCAL | FI_MR_RAW | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT)

bool of_provider_is(const char *provider, const char *name)
{
    const size_t len = strlen(name);

    for (const char *at = provider; at != NULL; at = strchr(at, ';')) {
        at += *at == ';';
        if (strncasecmp(at, name, len) == 0 && (at[len] == '\0' || at[len] == ';'))
            return true;
    }
    return false;
}

/* 0: a device. */
static unsigned software_rank(const char *provider)
{
    for (unsigned i = 0; software[i] != NULL; i++)
        if (of_provider_is(provider, software[i]))
            return i + 1;
    return 0;
}

static const char *name_of(const struct fi_info *info)
{
    return info->fabric_attr->prov_name;
}

static struct fi_info *hints_for(const char *name)
{
    struct fi_info *hints = fi_allocinfo();

    if (hints == NULL)
        return NULL;
    hints->ep_attr->type = FI_EP_RDM;
    if (name[0] != '\0')
        hints->fabric_attr->prov_name = strdup(name);
    return hints;
}

static void ask_for_all(struct fi_info *hints)
{
    hints->caps = FI_MSG | FI_RMA | FI_SEND | FI_RECV | FI_WRITE | FI_REMOTE_WRITE;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->domain_attr->mr_mode = MR_MODES;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->domain_attr->control_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
    hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
    /* More would be memory that a provider goes through in turns, a page fault each, before it uses any again. */
    hints->tx_attr->size = OF_QUEUE;
    hints->rx_attr->size = OF_QUEUE;
    hints->tx_attr->msg_order = FI_ORDER_SAS;
    hints->rx_attr->msg_order = FI_ORDER_SAS;
    hints->tx_attr->op_flags = FI_DELIVERY_COMPLETE; /* asked here whether it is there */
}

/* The first of the best. */
static const struct fi_info *best_of(const struct fi_info *all, bool named)
{
    const struct fi_info *best = NULL;

    for (const struct fi_info *info = all; info != NULL; info = info->next) {
        if (!named && of_provider_is(name_of(info), "shm"))
            continue;
        if (best == NULL || software_rank(name_of(info)) < software_rank(name_of(best)))
            best = info;
    }
    return best;
}

/* Names of what there is, each once. */
static void list_names(const struct fi_info *all, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (; all != NULL; all = all->next)
        if (strstr(text, name_of(all)) == NULL && used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "",
                                     name_of(all));
}

static void explain(const iso_transport_t *tp, const char *name)
{
    struct fi_info *it = NULL;
    char names[200] = "none";

    if (fi_getinfo(OF_API, NULL, NULL, 0, NULL, &it) == 0)
        list_names(it, names, sizeof names);
    bool present = false;
    for (const struct fi_info *info = it; info != NULL; info = info->next)
        present = present || of_provider_is(name_of(info), name);
    if (name[0] == '\0')
        of_log(
            tp, ISO_LOG_ERROR,
            "libfabric has no provider here with reliable endpoints and remote writes (it has: %s)",
            names);
    else if (present)
        of_log(
            tp, ISO_LOG_ERROR,
            "libfabric's provider '%s' has no reliable endpoints with remote writes: name another "
            "in ISO_OFI_PROVIDER (there are: %s), or none",
            name, names);
    else
        of_log(tp, ISO_LOG_ERROR,
               "libfabric has no provider '%s' here: name another in ISO_OFI_PROVIDER (there are: "
               "%s), or none",
               name, names);
    fi_freeinfo(it);
}

static void describe(iso_transport_t *tp)
{
    const char *name = name_of(tp->info), *domain = tp->info->domain_attr->name;

    snprintf(tp->description, sizeof tp->description, "libfabric's provider %s on %s: %s", name,
             domain != NULL ? domain : "?",
             tp->is_shm                ? "messages by it, puts by stores or process_vm_writev"
             : software_rank(name) > 0 ? "software, puts are copied by the target's CPU"
                                       : "taken for a device");
    of_log(tp, ISO_LOG_INFO, "%s; keys are %s, remote addresses %s", tp->description,
           tp->info->domain_attr->mr_mode & FI_MR_PROV_KEY ? "the provider's" : "ours",
           tp->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? "addresses" : "offsets");
}

static bool is_rxm(const struct fi_info *info)
{
    return of_provider_is(name_of(info), "ofi_rxm");
}

/* Most bytes of a message that the provider copies at once: it fetches longer ones when it likes (of_msg.c). */
static size_t copied_at_once(const struct fi_info *info)
{
    const char *size = is_rxm(info) ? getenv("FI_OFI_RXM_BUFFER_SIZE") : NULL;

    if (of_provider_is(name_of(info), "shm"))
        return info->tx_attr->inject_size;
    return size != NULL ? strtoull(size, NULL, 0) : SIZE_MAX; /* rxm's default is 16 KiB */
}

/* What messages of ours, and pieces of them, need. */
static iso_status_t check_sizes(const iso_transport_t *tp)
{
    const size_t longest = tp->info->ep_attr->max_msg_size, at_once = copied_at_once(tp->info);
    const size_t whole = sizeof(envelope_t) + OF_ROOM;

    if (longest >= whole && at_once >= OF_LEAST_PIECE)
        return ISO_OK;
    if (longest < whole)
        of_log(tp, ISO_LOG_ERROR,
               "libfabric's provider %s has messages of %zu bytes at most, %zu are needed: name "
               "another in ISO_OFI_PROVIDER",
               name_of(tp->info), longest, whole);
    else
        of_log(tp, ISO_LOG_ERROR,
               "libfabric's provider %s copies messages of %zu bytes at most, %u are needed: %s",
               name_of(tp->info), at_once, OF_LEAST_PIECE,
               is_rxm(tp->info) ? "set FI_OFI_RXM_BUFFER_SIZE to more, or not at all"
                                : "name another in ISO_OFI_PROVIDER");
    return ISO_ERR_INVALID;
}

static void set_sizes(iso_transport_t *tp)
{
    const size_t longest = tp->info->ep_attr->max_msg_size, at_once = copied_at_once(tp->info);
    const size_t whole = sizeof(envelope_t) + OF_ROOM;
    const size_t from = tp->info->tx_attr->iov_limit, to = tp->info->tx_attr->rma_iov_limit;

    tp->piece = longest < OF_PIECE ? longest : OF_PIECE;
    tp->parts = from < to ? from : to;
    tp->parts = tp->parts < 1 ? 1 : tp->parts < OF_PARTS ? tp->parts : OF_PARTS;
    tp->message_room = (at_once < whole ? at_once : whole) - sizeof(envelope_t);
    tp->message_room -= tp->message_room % sizeof(of_record_t);
}

iso_status_t of_provider_choose(iso_transport_t *tp)
{
    const char *name = tp->host->provider != NULL ? tp->host->provider : "";
    struct fi_info *hints = hints_for(name), *all = NULL;

    if (hints == NULL)
        return ISO_ERR_NO_MEMORY;
    ask_for_all(hints);
    const int error = fi_getinfo(OF_API, NULL, NULL, 0, hints, &all);
    fi_freeinfo(hints);
    const struct fi_info *best = error == 0 ? best_of(all, name[0] != '\0') : NULL;
    if (best == NULL) {
        explain(tp, name);
        fi_freeinfo(all);
        return name[0] != '\0' ? ISO_ERR_INVALID : ISO_ERR_NO_MODULE;
    }
    tp->info = fi_dupinfo(best);
    fi_freeinfo(all);
    if (tp->info == NULL)
        return ISO_ERR_NO_MEMORY;
    tp->info->tx_attr->op_flags = 0; /* asked for where it is wanted: messages need no answer */
    tp->is_shm = of_provider_is(name_of(tp->info), "shm");
    tp->counted = !tp->is_shm && software_rank(name_of(tp->info)) > 0 &&
                  tp->info->domain_attr->cq_data_size >= OF_LAND_DATA;
    tp->in_stream =
        of_provider_is(name_of(tp->info), "tcp") || of_provider_is(name_of(tp->info), "net");
    tp->in_order = tp->in_stream || is_rxm(tp->info);
    const iso_status_t status = check_sizes(tp);
    if (status != ISO_OK) {
        fi_freeinfo(tp->info);
        return status;
    }
    set_sizes(tp);
    describe(tp);
    return ISO_OK;
}

bool of_provider_one_sided(const iso_transport_t *tp)
{
    return tp->is_shm || of_provider_is(name_of(tp->info), "verbs");
}

bool of_provider_pins(const iso_transport_t *tp)
{
    return software_rank(name_of(tp->info)) == 0 ||
           (tp->info->domain_attr->mr_mode & FI_MR_ALLOCATED) != 0;
}
