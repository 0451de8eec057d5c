// Arbitration inside a node: one word decides, whoever asks first.
#include "core/node.h"
#include "core/os.h"
#include "tests/unit/support.hpp"
#include <atomic>
#include <thread>
#include <vector>

namespace {

const uint8_t cookie[16] = {42};
constexpr uint32_t slots = 256;

// A node of the ranks 0 and 1 in this process: rank 1 attaches to rank 0's segment.
struct Pair {
    iso_logger_t logger = {ISO_LOG_ERROR, 0};
    iso_node_t nodes[2];

    explicit Pair(bool shared_pages)
    {
        for (uint32_t rank = 0; rank < 2; rank++) {
            iso_node_t &node = nodes[rank];
            node = {};
            node.self = rank;
            node.fd = -1;
            node.rank_count = 2;
            node.ranks = static_cast<uint32_t *>(malloc(2 * sizeof(uint32_t)));
            node.pids = static_cast<int32_t *>(malloc(2 * sizeof(int32_t)));
            node.starts = static_cast<uint64_t *>(calloc(2, sizeof(uint64_t)));
            for (uint32_t r = 0; r < 2; r++) {
                node.ranks[r] = r;
                node.pids[r] = getpid();
            }
            node.shared_pages = shared_pages;
        }
        REQUIRE(iso_node_create(&nodes[0], &logger, cookie, slots) == ISO_OK);
        REQUIRE(iso_node_attach(&nodes[1], &logger, cookie, slots, nodes[0].fd) == ISO_OK);
    }
    ~Pair()
    {
        iso_node_close(&nodes[1]);
        iso_node_close(&nodes[0]);
    }
};

} // namespace

TEST_CASE("an offer is taken once, by its target, for its epoch", "[node]")
{
    Pair p(true);
    iso_node_offer(&p.nodes[0], 9, 1, 5);
    CHECK_FALSE(iso_node_taken(&p.nodes[0], 9, 0, 1, 5));
    CHECK_FALSE(iso_node_take(&p.nodes[1], 9, 0, 4)); // an earlier attempt
    CHECK_FALSE(iso_node_take(&p.nodes[0], 9, 1, 5)); // the wrong way round
    CHECK(iso_node_take(&p.nodes[1], 9, 0, 5));
    CHECK_FALSE(iso_node_take(&p.nodes[1], 9, 0, 5));
    CHECK(iso_node_taken(&p.nodes[0], 9, 0, 1, 5));
    CHECK_FALSE(iso_node_decline(&p.nodes[0], 9, 0, 1, 5)); // too late
}

TEST_CASE("an offer that was given up cannot be taken", "[node]")
{
    Pair p(false);
    iso_node_offer(&p.nodes[0], 9, 1, 5);
    CHECK(iso_node_decline(&p.nodes[0], 9, 0, 1, 5));
    CHECK_FALSE(iso_node_take(&p.nodes[1], 9, 0, 5));
    CHECK_FALSE(iso_node_taken(&p.nodes[0], 9, 0, 1, 5));
}

TEST_CASE("it stays taken when the target sends the heap on", "[node]")
{
    Pair p(true);
    iso_node_offer(&p.nodes[0], 9, 1, 5);
    REQUIRE(iso_node_take(&p.nodes[1], 9, 0, 5));
    iso_node_offer(&p.nodes[1], 9, 0, 6);
    CHECK(iso_node_taken(&p.nodes[0], 9, 0, 1, 5));
    iso_node_begin(&p.nodes[1], 9);
    CHECK(iso_node_taken(&p.nodes[0], 9, 0, 1, 5));
}

TEST_CASE("of taking and giving up at once, exactly one succeeds", "[node]")
{
    Pair p(true);
    unsigned taken = 0;
    for (uint64_t epoch = 1; epoch <= 20000; epoch++) {
        iso_node_offer(&p.nodes[0], 3, 1, epoch);
        bool took = false;
        std::thread target([&] { took = iso_node_take(&p.nodes[1], 3, 0, epoch); });
        if (epoch % 2 != 0u)
            std::this_thread::yield();
        const bool declined = iso_node_decline(&p.nodes[0], 3, 0, 1, epoch);
        target.join();
        REQUIRE(took != declined);
        REQUIRE(iso_node_taken(&p.nodes[0], 3, 0, 1, epoch) == took);
        taken += took;
        if (epoch >= 500 && taken > 0 && taken < epoch)
            break; // both outcomes were seen
    }
    CHECK(taken > 0);
}

TEST_CASE("left pages are released by who left them, or claimed by another, never both", "[node]")
{
    Pair p(true);
    iso_node_leave(&p.nodes[0], 7);
    CHECK_FALSE(iso_node_release_begin(&p.nodes[1], 7)); // not its own
    CHECK(iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_YES);
    CHECK_FALSE(iso_node_release_begin(&p.nodes[0], 7)); // claimed
    iso_node_leave(&p.nodes[0], 7);
    REQUIRE(iso_node_release_begin(&p.nodes[0], 7));
    std::atomic<bool> released = false, claimed = false;
    std::thread claimer([&] { // waits for the release
        claimed = iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_YES && released;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    released = true;
    iso_node_release_end(&p.nodes[0], 7);
    claimer.join();
    CHECK(claimed);
}

TEST_CASE("one rank has a claim, and it ends as it began or with the heap", "[node]")
{
    Pair p(true);
    iso_node_leave(&p.nodes[0], 7);
    REQUIRE(iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_YES);
    CHECK(iso_node_claim(&p.nodes[0], 7, false) == ISO_CLAIM_NO);
    CHECK_FALSE(iso_node_claim_left(&p.nodes[0], 7)); // not even who left the pages
    iso_node_unclaim(&p.nodes[1], 7);
    CHECK(iso_node_claim_left(&p.nodes[0], 7)); // they are its own again
    CHECK_FALSE(iso_node_abandon(&p.nodes[1], 7));
    CHECK(iso_node_abandon(&p.nodes[0], 7));
    REQUIRE(iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_YES);
    iso_node_own(&p.nodes[1], 7);
    CHECK(iso_node_claim(&p.nodes[0], 7, false) == ISO_CLAIM_NO); // it is in the node
    CHECK_FALSE(iso_node_abandon(&p.nodes[1], 7));
    iso_node_offer(&p.nodes[1], 7, 0, 3);
    CHECK(iso_node_claim(&p.nodes[0], 7, false) == ISO_CLAIM_NO);
    CHECK_FALSE(iso_node_taken(&p.nodes[1], 7, 1, 0, 3)); // and that has not touched the offer
    CHECK(iso_node_take(&p.nodes[0], 7, 1, 3));
    iso_node_give(&p.nodes[0], 7);
    CHECK(iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_YES);
    iso_node_receive(&p.nodes[0], 7); // free slots come whatever was expected there
    CHECK_FALSE(iso_node_abandon(&p.nodes[1], 7));
    CHECK(iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_NO);
}

TEST_CASE("a claim does not wait for a rank that died while releasing", "[node]")
{
    Pair p(true);
    const pid_t child = fork();
    if (child == 0) {
        p.nodes[0].pids[0] = getpid();
        iso_node_leave(&p.nodes[0], 7);
        _exit(iso_node_release_begin(&p.nodes[0], 7) ? 0 : 1);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(status == 0);
    REQUIRE(p.nodes[1].words[7] != 0);
    p.nodes[1].pids[0] = child; // rank 0 is that process
    CHECK(iso_node_claim(&p.nodes[1], 7, false) == ISO_CLAIM_YES);
    // nor is it stopped by what that rank owned, or expected; by an offer of it, it is
    iso_node_own(&p.nodes[0], 8);
    CHECK(iso_node_claim(&p.nodes[1], 8, false) == ISO_CLAIM_OF_DEAD);
    REQUIRE(iso_node_claim(&p.nodes[0], 9, false) == ISO_CLAIM_YES);
    CHECK(iso_node_claim(&p.nodes[1], 9, false) == ISO_CLAIM_YES);
    iso_node_own(&p.nodes[1], 10);
    CHECK(iso_node_claim(&p.nodes[1], 10, false) == ISO_CLAIM_NO);
    CHECK(iso_node_claim(&p.nodes[1], 10, true) == ISO_CLAIM_YES); // a slot of a heap of the dead
    iso_node_offer(&p.nodes[0], 11, 1, 1);
    CHECK(iso_node_claim(&p.nodes[1], 11, false) == ISO_CLAIM_NO);
}

TEST_CASE("another job's segment is refused", "[node]")
{
    Pair p(true);
    const uint8_t other[16] = {43};
    const ChildResult child = in_child([&] {
        iso_node_t node = p.nodes[1];
        return iso_node_attach(&node, &p.logger, other, slots, p.nodes[0].fd) == ISO_ERR_INVALID &&
                       iso_node_attach(&node, &p.logger, cookie, slots, 987) == ISO_ERR_SYSTEM
                   ? 0
                   : 1;
    });
    CHECK(child.exited_with(0));
    CHECK(child.stderr_text.find("ISO_NODE_SIZE=1") != std::string::npos);
}
