// Sessions on disk: they go on with the same logits, whatever the method and the format; a file
// that is wrong in any way is a sentence; and a save that fails leaves the older file.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <winnow/session_file.h>
#include <winnow/winnow.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "core/archive.h"
#include "core/checksum.h"
#include "core/durable_file.h"
#include "support/tiny_engine.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;
using Bytes = std::vector<std::byte>;

class SessionFile : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        // Syncing takes long on a busy disk, and none of these tests pulls the plug.
        const std::string memory = "/dev/shm";
        folder_ = (std::filesystem::exists(memory) ? memory + "/" : ::testing::TempDir()) +
                  "winnow-session-" + std::to_string(getpid());
        std::filesystem::create_directories(folder_);
        const testing::TinyModelOptions options{.query_heads = 4,
                                                .kv_heads = 2,
                                                .head_dim = 32,
                                                .embed = 64,
                                                .ff = 64,
                                                .context = 4096};
        testing::write_tiny_gguf(path("a.gguf"), options);
        testing::TinyModelOptions other = options;
        other.seed = 2;
        testing::write_tiny_gguf(path("b.gguf"), other);
        model_ = Model::load(path("a.gguf"), {.threads = 1});
    }
    static void TearDownTestSuite() {
        model_.reset();
        std::filesystem::remove_all(folder_);
    }
    static std::string path(const std::string& name) { return folder_ + "/" + name; }
    static Tokens prompt(int n, unsigned seed = 1) { return testing::random_prompt(n, seed); }
    static CacheOptions snapkv() {
        CacheOptions o;
        o.method = "snapkv";
        o.max_capacity_prompts = 128;
        o.nbits = 4;
        return o;
    }
    // Decodes, reads a second prompt, decodes again.
    static std::string go_on(Session& session) {
        for (int i = 0; i < 90; ++i) {
            session.decode(i % 300);
        }
        session.prefill(prompt(70, 9));
        for (int i = 0; i < 70; ++i) {
            session.decode((i * 7) % 300);
        }
        return session.logits_hash();
    }
    static void expect_same_stats(const Session& a, const Session& b) {
        const CacheStats x = a.stats(), y = b.stats();
        EXPECT_EQ(x.bytes, y.bytes);
        EXPECT_EQ(x.bytes_peak, y.bytes_peak);
        EXPECT_EQ(x.allocated_bytes, y.allocated_bytes);
        EXPECT_EQ(x.policy_bytes, y.policy_bytes);
        EXPECT_EQ(x.kept, y.kept);
        EXPECT_EQ(x.evictions, y.evictions);
        EXPECT_EQ(x.demotions, y.demotions);
        EXPECT_EQ(x.tokens_seen, y.tokens_seen);
        EXPECT_EQ(x.dropped_mass, y.dropped_mass);
        EXPECT_EQ(x.precisions.size(), y.precisions.size());
    }
    static void expect_goes_on(const CacheOptions& cache, int tokens = 200) {
        Session session(model_, cache);
        session.pin(40, 44);
        session.prefill(prompt(tokens));
        for (int i = 0; i < 37; ++i) {
            session.decode(i);
        }
        session.save(path("same"));
        Session back = Session::load(model_, path("same"), cache);
        expect_same_stats(session, back);
        EXPECT_EQ(session.logits_hash(), back.logits_hash());
        EXPECT_TRUE(std::ranges::equal(session.logits(), back.logits()));
        EXPECT_TRUE(std::ranges::equal(session.tokens(), back.tokens()));
        EXPECT_EQ(session.pins(), back.pins());
        EXPECT_EQ(go_on(session), go_on(back));
        expect_same_stats(session, back);
        const SessionFileInfo info = read_session_info(path("same"));
        EXPECT_EQ(info.damage, "");
        EXPECT_EQ(info.tokens.size(), static_cast<std::size_t>(tokens + 37));
    }
    static std::string error_of(const std::function<void()>& call) {
        try {
            call();
        } catch (const Error& error) {
            EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
            return error.what();
        }
        return "";
    }
    static void write(const std::string& name, const Bytes& bytes) {
        std::ofstream file(path(name), std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
    }

    static std::string folder_;
    static std::shared_ptr<const Model> model_;
};

std::string SessionFile::folder_;
std::shared_ptr<const Model> SessionFile::model_;

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

TEST_F(SessionFile, EveryFormatGoesOnWithTheSameLogits) {
    for (const MethodInfo& format : format_list()) {
        for (const int bits : {2, 3, 4, 8}) {
            SCOPED_TRACE(format.name + " " + std::to_string(bits));
            CacheOptions o = snapkv();
            o.quant_method = format.name;
            o.nbits = format.name == "none" ? 16 : bits;
            o.nbits_v = format.name == "none" ? 0 : 16;
            try {
                validate(o);
            } catch (const Error&) {
                continue;  // a width that the format lacks
            }
            o.nbits_v = 0;
            expect_goes_on(o);
            o.method = "full";
            o.max_capacity_prompts = 0;
            expect_goes_on(o, bits == 4 ? 700 : 30);  // more than one tile, or all in the tail
        }
    }
    CacheOptions o = snapkv();
    for (const char* format : {"hqq", "kvquant"}) {
        SCOPED_TRACE(format);
        o.quant_method = format;
        o.outlier_threshold = 1.5;
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

class Damage : public SessionFile {
  protected:
    void SetUp() override {
        Session session(model_, snapkv());
        session.prefill(prompt(200));
        session.save(path("good"));
        good_ = read_whole_file(path("good"));
    }
    // Refused by load() and by read_session_info(), or by the latter as damage.
    void expect_refused(const Bytes& bytes, const std::string& part) {
        write("bad", bytes);
        const std::string message = error_of([&] { Session::load(model_, path("bad"), snapkv()); });
        EXPECT_NE(message, "");
        EXPECT_NE(message.find("bad'"), std::string::npos) << message;
        EXPECT_NE(message.find(part), std::string::npos) << message;
        std::string damage;
        const std::string thrown =
            error_of([&] { damage = read_session_info(path("bad")).damage; });
        EXPECT_NE(damage + thrown, "");
    }
    // Puts the right checksum on a section whose content was changed.
    static void reseal(Bytes& bytes) {
        std::size_t at = 32;
        while (at + 16 <= bytes.size()) {
            std::uint64_t size = 0;
            std::memcpy(&size, bytes.data() + at, 8);
            if (size > bytes.size() - at - 16) {
                return;
            }
            const std::uint64_t sum = checksum(std::span(bytes).subspan(at + 16, size));
            std::memcpy(bytes.data() + at + 8, &sum, 8);
            at += 16 + size;
        }
    }
    Bytes good_;
};

TEST_F(Damage, CutOffAnywhere) {
    for (std::size_t size = 0; size < good_.size(); size += size < 300 ? 1 : 997) {
        expect_refused({good_.begin(), good_.begin() + static_cast<std::ptrdiff_t>(size)}, "");
    }
    Bytes longer = good_;
    longer.push_back(std::byte{0});
    expect_refused(longer, "something was added");
}

TEST_F(Damage, ABitAnywhere) {
    std::mt19937 random(3);
    for (int round = 0; round < 150; ++round) {
        Bytes bytes = good_;
        const std::size_t at =
            round < 64 ? static_cast<std::size_t>(round) : random() % bytes.size();
        bytes[at] ^= std::byte{1} << random() % 8;
        expect_refused(bytes, "");
    }
}

TEST_F(Damage, OtherVersionsFilesModelsAndOptions) {
    Bytes bytes = good_;
    bytes[8] = std::byte{9};
    expect_refused(bytes, "version 9");
    expect_refused(Bytes(1000, std::byte{7}), "not a session");
    EXPECT_NE(
        error_of([&] { Session::load(model_, path("none"), snapkv()); }).find("cannot be read"),
        std::string::npos);
    EXPECT_NE(error_of([&] { Session::load(model_, ::testing::TempDir(), snapkv()); }), "");
    const auto other = Model::load(path("b.gguf"), {.threads = 1});
    EXPECT_NE(error_of([&] { Session::load(other, path("good"), snapkv()); }).find(other->sha256()),
              std::string::npos);
    CacheOptions o = snapkv();
    o.nbits = 2;
    const std::string message = error_of([&] { Session::load(model_, path("good"), o); });
    EXPECT_NE(message.find("--nbits is '4' there and '2' here"), std::string::npos) << message;
    SessionOptions small;
    small.context = 100;
    EXPECT_NE(error_of([&] { Session::load(model_, path("good"), snapkv(), small); }), "");
}

// Contents that the checksums vouch for are believed no more: an error, or a session that runs.
TEST_F(Damage, ForgedContentsAreRefusedOrHarmless) {
    std::mt19937 random(4);
    std::vector<CacheOptions> caches(5, snapkv());
    caches[1].quant_method = "kvquant";
    caches[2].quant_method = "hqq";
    caches[2].outlier_threshold = 1.5;
    caches[3].quant_method = "graded";
    caches[4].method = "mixed";
    caches[4].nbits = 0;
    int refused = 0;
    for (const CacheOptions& cache : caches) {
        Session session(model_, cache);
        session.prefill(prompt(200));
        session.save(path("forged"));
        const Bytes whole = read_whole_file(path("forged"));
        for (int round = 0; round < 60; ++round) {
            Bytes bytes = whole;
            for (unsigned i = 0; i <= random() % 3; ++i) {
                const std::size_t at = 48 + random() % (bytes.size() - 48);
                const std::byte value =
                    random() % 3 == 0 ? std::byte{0xFF} : static_cast<std::byte>(random());
                bytes[at] = value;
            }
            // Counts are 64 bits wide: a huge one now and then.
            if (round % 10 == 0) {
                const std::uint64_t huge = ~0ULL >> random() % 40;
                std::memcpy(bytes.data() + 48 + random() % (bytes.size() - 56), &huge, 8);
            }
            reseal(bytes);
            write("forged", bytes);
            try {
                Session back = Session::load(model_, path("forged"), cache);
                for (int i = 0; i < 3; ++i) {
                    back.decode(i);
                }
                back.prefill(prompt(60, 5));
            } catch (const Error&) {
                ++refused;
            }
            try {
                read_session_info(path("forged"));
            } catch (const Error&) {
            }
        }
    }
    EXPECT_GT(refused, 10);
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
