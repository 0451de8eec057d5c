// A heap goes from rank 0 to rank 1 and on to rank 2, and ISO_TEST_AT ends or stops one of the first two at
// a stage of it (core/stage.h). Afterwards there is one owner or, where the design says so, none.
//
//   stages fresh|granted|object end|stop <victim> <stage>     status 77: the stage is not on this path
//
// object: the heap is part of an object, which has a block of its own, too; alone: it is all that the object has.
//
// The survivors print "survivor <rank>".
#include "marked.hpp"
#include <cerrno>
#include <csignal>
#include <dirent.h>
#include <fstream>
#include <isomalloc/pup.h>
#include <map>

namespace {

constexpr size_t size = 3 << 20; // several puts
constexpr unsigned char mark = 0x5a;
constexpr double patience = 8;  // s; ISO_TIMEOUT is much less
constexpr double stop_time = 1; // s; ISO_TIMEOUT is less

struct Path {
    bool granted; // rank 0 has a standing grant
    bool in_node, handover;
};

// ---- an object: the heap, and a block that moves on its own ----

struct Thing {
    iso_heap_t *heap;
    void *block;
    uint64_t check; // by value
};

constexpr size_t block_size = 300000;
constexpr uint64_t check_value = 0x1234567890abcdef;
bool of_object = false, has_block = false;
Job *the_job = nullptr;
std::map<iso_heap_t *, Thing *> things;

int freed = 0, stayed = 0;

void pup_thing(pup_er p, void *object)
{
    auto *thing = static_cast<Thing *>(object);
    pup_ulong(p, &thing->check);
    iso_pup_heap(p, the_job->job, &thing->heap);
    if (has_block)
        iso_pup_block(p, the_job->job, &thing->block);
    freed += pup_isDeleting(p);
}

void check_thing(const Thing &thing)
{
    const auto *bytes = static_cast<const unsigned char *>(thing.block);
    EXPECT(thing.check == check_value && iso_heap_state(thing.heap) == ISO_HEAP_OWNED);
    if (!has_block)
        return;
    EXPECT(iso_heap_state(iso_heap_of(bytes)) == ISO_HEAP_OWNED);
    EXPECT(bytes[0] == mark && std::memcmp(bytes, bytes + 1, block_size - 1) == 0);
}

void on_thing(iso_job_t * /*job*/, void *object, uint32_t source, iso_status_t status,
              void * /*arg*/)
{
    EXPECT_STATUS(ISO_OK, status);
    auto *thing = static_cast<Thing *>(object);
    check_thing(*thing);
    things[thing->heap] = thing;
    the_job->arrivals.push_back({thing->heap, source, 0, {}});
}

void on_stay(iso_job_t * /*job*/, void *object, void * /*arg*/)
{
    check_thing(*static_cast<Thing *>(object));
    stayed++;
}

const iso_object_type_t thing_type = {sizeof thing_type, "thing", sizeof(Thing), pup_thing,
                                      on_thing,          on_stay, nullptr};

iso_heap_t *make_thing(Job &job, iso_heap_t *heap)
{
    auto *thing = static_cast<Thing *>(malloc(sizeof(Thing))); // as objects that arrive are
    *thing = {heap, has_block ? iso_movable_alloc(job.job, block_size) : nullptr, check_value};
    if (has_block)
        std::memset(thing->block, mark, block_size);
    things[heap] = thing;
    return heap;
}

iso_request_t *begin(Job &job, iso_heap_t *heap, uint32_t dest)
{
    iso_request_t *request = nullptr;
    if (!of_object)
        return job.start(heap, dest);
    EXPECT_STATUS(ISO_OK, iso_migrate_pup(job.job, dest, "thing", things[heap], &request));
    return request;
}

// ---- stages ----

const char *const source_stages[] = {"frozen",  "reserve_sent", "granted", "put_some", "put_all",
                                     "offered", "commit_sent",  "let_go",  "done_sent"};
const char *const target_stages[] = {"reserve_came", "grant_sent", "commit_came", "taken",
                                     "ack_sent",     "done_came",  "owned"};

template <size_t n> bool in(const std::string &name, const char *const (&list)[n])
{
    for (const char *one : list)
        if (name == one)
            return true;
    return false;
}

bool on_path(const std::string &stage, const Path &path)
{
    const char *const
        of_reserve[] = {"reserve_sent", "reserve_came"},
        *const of_grant[] = {"granted", "grant_sent"}, *const of_put[] = {"put_some", "put_all"},
        *const of_node[] = {"offered", "taken"}, *const of_messages[] = {"ack_sent", "done_came"};
    if (in(stage, of_reserve))
        return path.handover || !path.granted;
    if (in(stage, of_grant))
        return !path.handover && !path.granted;
    if (in(stage, of_put))
        return !path.handover;
    if (in(stage, of_node))
        return path.in_node;
    if (in(stage, of_messages))
        return !path.in_node;
    return in(stage, source_stages) || in(stage, target_stages);
}

// Does the heap survive the victim? Not if the victim owned it then, or was the only one to decide.
bool survives(const std::string &stage, bool source)
{
    const char *const source_gave[] = {"commit_sent", "let_go", "done_sent"},
                      *const target_has[] = {"taken", "ack_sent", "done_came", "owned"};
    return source ? in(stage, source_gave) : !in(stage, target_has);
}

// What was sent may still be in the process. Over UCX: COMMIT follows puts that are messages. Over ofi: what is said in
// answer to what came, as ACK is, leaves at the end of progress, and the source keeps a heap whose ACK did not.
bool may_be_either(const std::string &stage, bool source)
{
    const char *set = std::getenv("ISO_TRANSPORT");
    const std::string transport = set != nullptr ? set : "";
    return (transport == "ucx" && source && stage == "commit_sent") ||
           (transport == "ofi" && !source && stage == "ack_sent");
}

void pass_on(Job &job, iso_heap_t *heap)
{
    expect_marked(heap, size, mark);
    EXPECT(iso_malloc(heap, 1000) != nullptr); // it can be used
    if (of_object)
        check_thing(*things[heap]);
    EXPECT_STATUS(ISO_OK, iso_wait(begin(job, heap, 2)));
}

void source(Job &job, iso_heap_t *heap, bool stopped)
{
    const double start = now();
    const iso_status_t status = iso_wait(begin(job, heap, 1));
    EXPECT(now() - start < patience);
    if (status == ISO_ERR_IN_DOUBT) {
        EXPECT(stopped); // a certain death leaves no doubt
        while (iso_heap_state(heap) == ISO_HEAP_IN_DOUBT) {
            EXPECT(now() - start < patience);
            iso_progress_wait(job.job, 0.05);
        }
        iso_progress(job.job);
        EXPECT(stayed == (of_object && iso_heap_state(heap) == ISO_HEAP_OWNED ? 1 : 0));
    }
    if (of_object) // freed here if, and only if, it is elsewhere
        EXPECT(freed == (iso_heap_state(heap) == ISO_HEAP_OWNED ? 0 : 1));
    if (iso_heap_state(heap) == ISO_HEAP_OWNED)
        pass_on(job, heap);
    else
        EXPECT(iso_heap_state(heap) == ISO_HEAP_ELSEWHERE);
}

// The process of another rank: the launcher's child with that rank's environment. Not told by a heap:
// that would pass the stages, too.
pid_t process_of(uint32_t rank)
{
    const std::string wanted = "ISO_LOCAL_RANK=" + std::to_string(rank);
    pid_t found = 0;
    DIR *folder = opendir("/proc");
    EXPECT(folder != nullptr);
    while (const dirent *entry = readdir(folder)) {
        const std::string process = std::string("/proc/") + entry->d_name;
        int parent = 0;
        FILE *stat = std::fopen((process + "/stat").c_str(), "re");
        if (stat == nullptr)
            continue;
        if (std::fscanf(stat, "%*d (%*[^)]) %*c %d", &parent) != 1)
            parent = 0;
        std::fclose(stat);
        std::ifstream environment(process + "/environ");
        for (std::string one; parent == getppid() && std::getline(environment, one, '\0');)
            if (one == wanted)
                found = std::atoi(entry->d_name);
    }
    closedir(folder);
    EXPECT(found != 0);
    return found;
}

void run(const Path &path, bool stop, uint32_t victim, const std::string &stage, Job &job)
{
    iso_heap_t *heap = nullptr;
    const pid_t process = self == 2 ? process_of(victim) : 0;
    if (path.granted && self == 1) {
        iso_heap_t *first = marked(job, size, mark);
        iso_status_t status = ISO_OK;
        do // ISO_TIMEOUT is short, and the machine may be busy
            status = iso_wait(job.start(first, 0));
        while (status == ISO_ERR_TIMED_OUT);
        EXPECT_STATUS(ISO_OK, status);
    }
    if (self == 0)
        heap = path.granted ? job.receive().heap : marked(job, size, mark);
    if (self == 0 && of_object)
        make_thing(job, heap);
    job.barrier();

    const bool expected = stop || survives(stage, victim == 0);
    if (self == 0) {
        source(job, heap, stop);
    } else if (self == 1) {
        // it comes, or is seen not to come
        const double until = now() + (stop                      ? 2 * stop_time
                                      : expected && victim == 0 ? patience
                                                                : 0.6);
        while (job.arrivals.empty() && now() < until)
            iso_progress_wait(job.job, 0.05);
        if (!job.arrivals.empty())
            pass_on(job, job.receive().heap);
    } else {
        if (stop) {
            for (const double until = now() + stop_time; now() < until;)
                iso_progress_wait(job.job, 0.05);
            EXPECT(kill(process, SIGCONT) == 0);
        }
        const double until = now() + (expected ? patience : 0.8);
        while (job.arrivals.empty() && now() < until)
            iso_progress_wait(job.job, 0.05);
        EXPECT(job.arrivals.empty() != expected || (!stop && may_be_either(stage, victim == 0)));
        // it did happen, perhaps only after the heap had come here
        for (const double dead_by = now() + patience; !stop && kill(process, 0) == 0;) {
            EXPECT(now() < dead_by);
            iso_progress_wait(job.job, 0.01);
        }
    }
    job.barrier();
    if (self == 2 && !job.arrivals.empty()) {
        EXPECT(job.arrivals.size() == 1); // and nobody else had one
        heap = job.receive().heap;
        expect_marked(heap, size, mark);
    }
    EXPECT(job.stats().migrations_in_doubt == 0);
    job.finish();
    for (const auto &thing : things)
        free(thing.second);
    std::printf("survivor %u\n", self);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    const std::string way = argv[1], end = argv[2], stage = argv[4];
    const auto victim = static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10));
    if (!(victim == 0 ? in(stage, source_stages) : in(stage, target_stages)))
        return 77;
    Job job;
    the_job = &job;
    has_block = way == "object";
    of_object = has_block || way == "alone";
    EXPECT_STATUS(ISO_OK, iso_pup_register(job.job, &thing_type));
    Path path = {way == "granted", false, false};
    EXPECT_STATUS(ISO_OK, iso_same_node(job.job, self == 0 ? 1 : 0, &path.in_node));
    if (self == 2) { // ranks 0 and 1 are in one node if there are nodes of several at all
        const char *nodes = std::getenv("ISO_NODE_SIZE");
        path.in_node = nodes == nullptr || std::string(nodes) != "1";
    }
    path.handover = path.in_node && std::string(iso_backing_name(job.job)) == "shared";
    if (!on_path(stage, path)) {
        job.finish();
        return 77;
    }
    run(path, end == "stop", victim, stage, job);
    return 0;
}
