/*
 * of_shm.c - names and files of the provider shm.
 *
 * Each endpoint of shm is a file in /dev/shm, which a process that is killed leaves there. So ours have a name
 * that says whose they are: libisomalloc-ofi-<PID namespace>-<pid>-<start time>-<n>. A peer that has seen the
 * death removes the file; what is left when all were killed goes when the next instance is opened over shm.
 */
#include "ofi.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FOLDER "/dev/shm"
#define OURS "libisomalloc-ofi-"
#define SCHEME "fi_shm://"

static atomic_uint instances; /* of this process, for their names */

void of_shm_set_name(iso_transport_t *tp)
{
    char name[128];
    const int len = snprintf(name, sizeof name,
                             SCHEME OURS "%" PRIu64 "-%" PRId32 "-%" PRIu64 "-%u", tp->place.pid_ns,
                             tp->process.pid, tp->process.start, atomic_fetch_add(&instances, 1));

    if (tp->process.pid == 0)
        return; /* nobody could tell whose it is; shm's own name will do */
    const int error = fi_setname(&tp->ep->fid, name, (size_t)len + 1);
    if (error != 0)
        of_log(tp, ISO_LOG_INFO,
               "shm does not take the name %s (%s): its file stays if this process is killed", name,
               fi_strerror(-error));
}

/* The file's name, of a name of ours or of the file; else NULL. */
static const char *read_name(const char *name, uint64_t *pid_ns_p, process_id_t *process_p)
{
    const size_t scheme = strlen(SCHEME);

    if (strncmp(name, SCHEME, scheme) == 0)
        name += scheme;
    memset(process_p, 0, sizeof *process_p);
    if (sscanf(name, OURS "%" SCNu64 "-%" SCNd32 "-%" SCNu64 "-%*u", pid_ns_p, &process_p->pid,
               &process_p->start) != 3 ||
        strchr(name, '/') != NULL)
        return NULL;
    return name;
}

static bool has_ended(const process_id_t *process)
{
    int pidfd;
    const int error = process_watch(process, &pidfd);

    if (error != 0)
        return error == ESRCH;
    const bool ended = process_ended(pidfd);
    close(pidfd);
    return ended;
}

void of_shm_clean(const iso_transport_t *tp)
{
    DIR *folder = opendir(FOLDER);
    uint64_t pid_ns;
    process_id_t process;
    unsigned removed = 0;

    if (folder == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (read_name(entry->d_name, &pid_ns, &process) != NULL && pid_ns == tp->place.pid_ns &&
            has_ended(&process) && shm_unlink(entry->d_name) == 0)
            removed++;
    closedir(folder);
    if (removed > 0)
        of_log(tp, ISO_LOG_INFO,
               "removed %u files that ranks which were killed had left in " FOLDER, removed);
}

void of_shm_forget(const iso_transport_t *tp, const of_peer_t *peer)
{
    uint64_t pid_ns;
    process_id_t process;

    if (!tp->is_shm || peer->name == NULL)
        return;
    const char *name = read_name(peer->name, &pid_ns, &process);
    if (name != NULL && process_same(&process, &peer->base.process))
        shm_unlink(name);
}
