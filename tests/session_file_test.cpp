// Sessions on disk: they go on with the same logits, whatever the method, and a save that fails
// leaves the older file. Formats are in session_format_test, bad files in session_damage_test.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "core/durable_file.h"
#include "support/session_files.h"

namespace winnow {
namespace {

class SessionFile : public testing::SessionFiles<2> {};

TEST_F(SessionFile, EveryMethodGoesOnWithTheSameLogits) {
    std::vector<std::string> methods{"layerquant", "mixed", "adakv:criticalkv:knorm"};
    for (const MethodInfo& policy : policy_list()) {
        methods.push_back(policy.name);
    }
    for (const std::string& method : methods) {
        SCOPED_TRACE(method);
        CacheOptions o = snapkv();
        o.method = method;
        o.max_capacity_prompts = method == "full" ? 0 : 110;
        o.nbits = method == "mixed" || method == "layerquant" ? 0 : 4;
        o.quant_end_layers = method == "layerquant" ? 1 : 0;
        o.window_size = method == "lagkv" ? 16 : 0;
        o.beta = 2;
        expect_goes_on(o);
    }
}

TEST_F(SessionFile, BudgetsOfBytesPinsAndHiddenQuestionsGoOn) {
    for (const char* method : {"full", "snapkv", "h2o"}) {
        SCOPED_TRACE(method);
        CacheOptions o;
        o.method = method;
        o.kv_budget = "90KiB";
        expect_goes_on(o, 600);
        o.question_hidden = true;
        expect_goes_on(o, 600);
    }
    CacheOptions o;
    o.kv_budget = "60KiB";
    o.kv_budget_max = "120KiB";
    o.guard = 0.01;
    expect_goes_on(o, 600);
    expect_goes_on(snapkv(), 20);  // shorter than the cap
    Session fresh(model_, snapkv());
    fresh.save(path("fresh"));
    EXPECT_EQ(Session::load(model_, path("fresh"), snapkv()).position(), 0);
}

// Small sessions of every kind of format, for `make fuzz`.
TEST_F(SessionFile, SeedsForTheFuzzer) {
    const char* folder = std::getenv("WINNOW_FUZZ_SEEDS");
    if (folder == nullptr) {
        GTEST_SKIP() << "WINNOW_FUZZ_SEEDS does not name a folder to write seeds to.";
    }
    for (const MethodInfo& format : format_list()) {
        for (const char* method : {"snapkv", "h2o"}) {
            CacheOptions o = snapkv();
            o.method = method;
            o.quant_method = format.name;
            o.nbits = format.name == "none" ? 16 : 4;
            Session session(model_, o);
            session.prefill(prompt(150));
            session.save(std::string(folder) + "/" + format.name + "-" + method);
        }
    }
    CacheOptions mixed;
    mixed.kv_budget = "40KiB";
    Session session(model_, mixed);
    session.prefill(prompt(150));
    session.save(std::string(folder) + "/mixed");
}

TEST_F(SessionFile, AFullDiskLeavesTheOlderFile) {
    Session session(model_, snapkv());
    session.prefill(prompt(200));
    session.save(path("kept"));
    const Bytes before = read_whole_file(path("kept"));
    session.decode(1);
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{20000, 20000};
        setrlimit(RLIMIT_FSIZE, &limit);
        const std::string message = error_of([&] { session.save(path("kept")); });
        _exit(message.find("File too large") != std::string::npos &&
                      message.find("unchanged") != std::string::npos
                  ? 0
                  : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(read_whole_file(path("kept")), before);
    EXPECT_FALSE(std::filesystem::exists(path("kept.part")));
    EXPECT_NE(error_of([&] { session.save("/no/such/folder/x"); }).find("/no/such/folder/x"),
              std::string::npos);
    EXPECT_NE(error_of([&] { session.save(::testing::TempDir()); }), "");
}

// Killed at a random moment of a save, over and over: what is there is one state or the other.
TEST_F(SessionFile, KillingASaveNeverLosesTheOlderFile) {
    Session one(model_, snapkv());
    one.prefill(prompt(200));
    Session two = one.clone();
    two.decode(1);
    one.save(path("killed"));
    std::mt19937 random(6);
    int interrupted = 0;
    for (int round = 0; round < 15; ++round) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            for (;;) {
                two.save(path("killed"));
                one.save(path("killed"));
            }
        }
        std::this_thread::sleep_for(std::chrono::microseconds(500 + random() % 8000));
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        interrupted += std::filesystem::exists(path("killed.part")) ? 1 : 0;
        const std::string hash = Session::load(model_, path("killed"), snapkv()).logits_hash();
        ASSERT_TRUE(hash == one.logits_hash() || hash == two.logits_hash()) << "round " << round;
    }
    EXPECT_GT(interrupted, 0);
    two.save(path("killed"));  // over what the killed ones left
    EXPECT_EQ(Session::load(model_, path("killed"), snapkv()).logits_hash(), two.logits_hash());
}

TEST_F(SessionFile, InfoIsToldWithoutTheModel) {
    Session session(model_, snapkv());
    session.pin(3, 5);
    session.prefill(prompt(200));
    session.save(path("told"));
    const SessionFileInfo info = read_session_info(path("told"));
    const CacheStats stats = session.stats();
    EXPECT_EQ(info.model_sha256, model_->sha256());
    EXPECT_EQ(info.cache.max_capacity_prompts, 128);
    EXPECT_EQ(info.tokens, prompt(200));
    EXPECT_EQ(info.kept, stats.kept);
    EXPECT_EQ(info.bytes, stats.bytes);
    EXPECT_EQ(info.policy_bytes, stats.policy_bytes);
    EXPECT_EQ(info.pins, (std::vector<std::pair<int, int>>{{3, 5}}));
    ASSERT_EQ(info.precisions.size(), stats.precisions.size());
    EXPECT_EQ(info.precisions[1].bytes, stats.precisions[1].bytes);
    EXPECT_EQ(info.file_bytes, std::filesystem::file_size(path("told")));
    // Besides the cache: the logits, the tokens, and little else.
    EXPECT_LT(info.file_bytes, info.bytes + info.policy_bytes + 4 * 320 + 4 * 200 + 4000);
}

}  // namespace
}  // namespace winnow
