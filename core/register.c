/* register.c - see register.h. */
#include "core/register.h"
#include "core/job.h"
#include "core/os.h"
#include "core/window.h"
#include <inttypes.h>
#include <stdio.h>

#define LEAST (ISO_WINDOWS_LEAST * (uint64_t)ISO_SLOT_SIZE)

/* What may be registered, and what sets the bound. */
typedef struct budget {
    uint64_t bytes;
    const char *by;
} budget_t;

typedef struct choice {
    iso_registration_t policy;
    budget_t budget;
    iso_status_t status;
    char text[160]; /* what and why; of a failure, why and what to set */
} choice_t;

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* What the transport pins for itself, it pins when it connects: later than this is asked. */
static uint64_t taken(const iso_transport_caps_t *caps)
{
    uint64_t pinned = iso_os_pinned();
    return pinned > caps->own_pinned ? pinned : caps->own_pinned;
}

/* Of a limit of the system's, what is not the transport's own, now or later; of the memory, half. */
static budget_t find_budget(const iso_params_t *params, const iso_transport_caps_t *caps)
{
    uint64_t limit = iso_os_lock_limit(), others = taken(caps);
    uint64_t left = limit > others ? limit - others : 0;
    bool pins = caps->pins_memory;
    budget_t budget = {iso_os_memory() / 2, "half of the memory"};
    if (!caps->own_pinned)
        left = left / 4 * 3;
    if (pins && limit != UINT64_MAX && left < budget.bytes)
        budget = (budget_t){left, "ulimit -l"};
    if (params->pin_limit && (params->pin_limit <= budget.bytes || !pins))
        budget = (budget_t){params->pin_limit, "ISO_PIN_LIMIT"};
    return budget;
}

/* The smallest `ulimit -l`, in KiB, that leaves room for windows. */
static uint64_t least_limit(const iso_transport_caps_t *caps)
{
    return (taken(caps) + (caps->own_pinned ? LEAST : (LEAST + 2) / 3 * 4) + 1023) / 1024;
}

static void choose_window(choice_t *choice, const iso_transport_caps_t *caps, const char *why)
{
    char least[48] = "";
    choice->policy = ISO_REGISTER_WINDOW;
    if (choice->budget.bytes >= LEAST) {
        snprintf(choice->text, sizeof choice->text, "window: at most %.0f MiB at a time (%s)%s%s",
                 mib(choice->budget.bytes), choice->budget.by, *why ? ": " : "", why);
        return;
    }
    choice->status = ISO_ERR_LIMIT;
    if (choice->budget.by[0] == 'u')
        snprintf(least, sizeof least, " to %" PRIu64 " (KiB) or more", least_limit(caps));
    snprintf(choice->text, sizeof choice->text,
             "%s allows %.1f MiB to be registered, and %.0f MiB are the least: raise it%s",
             choice->budget.by, mib(choice->budget.bytes), mib(LEAST), least);
}

static choice_t choose(const iso_params_t *params, const iso_transport_caps_t *caps,
                       uint64_t space_size)
{
    bool pins = caps->pins_memory;
    char why[96];
    choice_t choice = {
        .policy = params->registration, .budget = find_budget(params, caps), .status = ISO_OK};
    snprintf(why, sizeof why, "all of the space, %.0f MiB, would be pinned", mib(space_size));
    switch (params->registration) {
    case ISO_REGISTER_AUTO:
        if (pins && space_size > choice.budget.bytes) {
            choose_window(&choice, caps, why);
            break;
        }
        choice.policy = ISO_REGISTER_SPACE;
        if (pins)
            snprintf(choice.text, sizeof choice.text,
                     "space: all of it, %.0f MiB, fits what may be pinned, %.0f MiB (%s)",
                     mib(space_size), mib(choice.budget.bytes), choice.budget.by);
        else
            snprintf(choice.text, sizeof choice.text, "space: nothing is pinned by that");
        break;
    case ISO_REGISTER_SPACE:
        snprintf(choice.text, sizeof choice.text, "space: as ISO_REGISTER says");
        if (!pins || space_size <= choice.budget.bytes || !params->pin_limit)
            break; /* without a limit of the caller's the system decides, and the transport says so */
        choice.status = ISO_ERR_LIMIT;
        snprintf(
            choice.text, sizeof choice.text,
            "ISO_REGISTER=space pins %.0f MiB, and %s is %.0f MiB: raise it, set ISO_SPACE_SIZE "
            "to less, or ISO_REGISTER=window",
            mib(space_size), choice.budget.by, mib(choice.budget.bytes));
        break;
    case ISO_REGISTER_ODP:
        snprintf(choice.text, sizeof choice.text, "odp: as ISO_REGISTER says");
        if (caps->on_demand)
            break;
        choice.status = ISO_ERR_INVALID;
        snprintf(choice.text, sizeof choice.text, "ISO_REGISTER=odp: %s: set ISO_REGISTER=auto",
                 pins ? "no device here fetches pages on demand (it would pin them all)"
                      : "nothing here pins memory, so that nothing need be fetched on demand");
        break;
    case ISO_REGISTER_WINDOW:
        choose_window(&choice, caps, "as ISO_REGISTER says");
        break;
    }
    return choice;
}

void iso_register_describe(const iso_params_t *params, const iso_transport_caps_t *caps,
                           uint64_t space_size, char *text, size_t size)
{
    choice_t choice = choose(params, caps, space_size);
    snprintf(text, size, "%s%s", choice.status == ISO_OK ? "" : "none: ", choice.text);
}

static iso_status_t register_chosen(iso_job_t *job, iso_link_t *link)
{
    const iso_transport_caps_t *caps = &link->caps;
    choice_t choice = choose(&job->params, caps, job->space.size);
    snprintf(job->registration, sizeof job->registration, "%s", choice.text);
    if (choice.status != ISO_OK) {
        iso_log(&job->logger, ISO_LOG_ERROR, "transport %s: %s", link->ops->name, choice.text);
        return choice.status;
    }
    if (choice.policy == ISO_REGISTER_WINDOW) {
        iso_status_t status = iso_windows_open(job, link, choice.budget.bytes);
        if (status != ISO_OK)
            return status;
        /* other ranks of the node give back pages that this one has in a window, and do not know */
        job->space.pinned = caps->pins_memory && job->space.backing == ISO_BACKING_SHARED;
        if (job->space.pinned)
            iso_log(
                &job->logger, ISO_LOG_INFO,
                "no page of the shared iso space is given back, since windows of it are pinned: "
                "ISO_BACKING=private gives pages back");
        return ISO_OK;
    }
    job->space.pinned = caps->pins_memory;
    iso_status_t status = iso_link_register(link);
    if (status != ISO_OK)
        return status;
    job->stats.registrations = 1;
    job->stats.registered_bytes = job->stats.registered_high = job->space.size;
    return ISO_OK;
}

iso_status_t iso_register_open(iso_job_t *job)
{
    iso_link_t *link = job->net_link ? job->net_link : job->node_link;
    iso_status_t status = ISO_OK;
    snprintf(job->registration, sizeof job->registration,
             "nothing: a job of one rank puts nowhere");
    if (!link)
        return ISO_OK;
    if (job->node_link && job->node_link != link)
        status = iso_link_register(job->node_link);
    if (status == ISO_OK)
        status = register_chosen(job, link);
    if (status != ISO_OK)
        return status;
    if (job->windows)
        iso_log(&job->logger, ISO_LOG_INFO,
                "transport %s registers %s; %" PRIu32 " regions of %.0f MiB", link->ops->name,
                job->registration, job->windows->room,
                mib((uint64_t)job->windows->slots << ISO_SLOT_SHIFT));
    else
        iso_log(&job->logger, ISO_LOG_INFO, "transport %s registers %s", link->ops->name,
                job->registration);
    return ISO_OK;
}
