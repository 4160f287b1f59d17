// What a long prompt costs: the peak of prefill against its formula, against the allocator's count
// and against the memory the process really takes.
#include <gtest/gtest.h>
#include <malloc.h>
#include <winnow/winnow.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "engine/session_impl.h"
#include "support/test_files.h"

namespace winnow {
namespace {

constexpr int kLong = 7000;
constexpr int kShort = 512;  // one whole chunk
constexpr std::size_t kMiB = std::size_t{1} << 20;

// The process's anonymous resident memory.
std::size_t resident_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("RssAnon:")) {
            return std::stoull(line.substr(8)) * 1024;
        }
    }
    return 0;
}

/// Looks at the resident memory every few milliseconds.
class ResidentPeak {
  public:
    ResidentPeak()
        : start_(resident_bytes()), peak_(start_), watcher_([this] {
              while (!done_) {
                  peak_ = std::max(peak_.load(), resident_bytes());
                  std::this_thread::sleep_for(std::chrono::milliseconds(2));
              }
          }) {}
    ~ResidentPeak() { stop(); }
    std::size_t growth() {
        stop();
        return peak_ - start_;
    }

  private:
    void stop() {
        done_ = true;
        if (watcher_.joinable()) {
            watcher_.join();
        }
    }
    std::size_t start_;
    std::atomic<std::size_t> peak_;
    std::atomic<bool> done_{false};
    std::thread watcher_;
};

class Memory : public ::testing::Test {
  protected:
    void SetUp() override {
        const std::string path = testing::find_model("SmolLM2-135M");
        const std::string text = testing::english_text(std::size_t{6} * kLong);
        if (path.empty() || text.empty()) {
            GTEST_SKIP() << testing::missing_model("SmolLM2-135M") << " and text in examples/";
        }
        model_ = Model::load(path);
        tokens_ = model_->tokenize(text, false, false);
        ASSERT_GE(tokens_.size(), static_cast<std::size_t>(kLong));
        tokens_.resize(kLong);
    }

    // Beside the scratch that does not grow with T, a prefill may hold only what the formula says.
    // `per_token` are the bytes per prompt token of what the policy observes.
    void expect_peak(const CacheOptions& options, std::size_t per_token) {
        const ModelInfo& m = model_->info();
        Session brief(model_, options);
        brief.prefill(std::span(tokens_).first(kShort));
        const auto growing = [&](std::size_t tokens, std::size_t cache) {
            return cache + tokens * (4U * m.kv_heads * m.head_dim + 4U * m.embedding + per_token);
        };
        const CacheStats small = brief.stats();
        const std::size_t known = growing(kShort, small.bytes + small.policy_bytes);
        ASSERT_GT(small.prefill_peak_bytes, known);
        const std::size_t scratch = small.prefill_peak_bytes - known;

        ResidentPeak resident;
        Session session(model_, options);
        session.prefill(tokens_);
        const std::size_t growth = resident.growth();
        const CacheStats stats = session.stats();
        const std::size_t limit = growing(kLong, stats.bytes + stats.policy_bytes) + scratch;
        std::printf("%s: peak %.2f MiB, formula %.2f MiB (scratch %.2f MiB), resident %.2f MiB\n",
                    options.method.c_str(), static_cast<double>(stats.prefill_peak_bytes) / kMiB,
                    static_cast<double>(limit) / kMiB, static_cast<double>(scratch) / kMiB,
                    static_cast<double>(growth) / kMiB);
        EXPECT_LE(stats.prefill_peak_bytes, limit);
        EXPECT_LE(scratch, 32 * kMiB);
        EXPECT_LE(growth, stats.prefill_peak_bytes + 8 * kMiB);
        // The count is of something: the hidden states and one layer's K and V at the least.
        EXPECT_GE(stats.prefill_peak_bytes, growing(kLong, stats.bytes) - kLong * per_token);
        EXPECT_GE(growth + 8 * kMiB, stats.prefill_peak_bytes - scratch);
    }

    std::shared_ptr<const Model> model_;
    std::vector<std::int32_t> tokens_;
};

CacheOptions options_of(const std::string& method, int bits) {
    CacheOptions options;
    options.method = method;
    options.max_capacity_prompts = method == "full" ? 0 : 512;
    options.nbits = bits;
    return options;
}

// Scores, pooling and selection hold a few floats and indices per token and head: c = 12.
TEST_F(Memory, SnapKvPeakIsItsFormula) {
    const std::size_t heads = model_->info().query_heads + model_->info().kv_heads;
    expect_peak(options_of("snapkv", 4), 12U * heads);
}

// H2O keeps 32 rows of raw scores per thread, the sums of H query heads, and copies of them.
TEST_F(Memory, H2oPeakIsItsFormula) {
    const std::size_t heads = model_->info().query_heads + model_->info().kv_heads;
    const std::size_t rows = 32U * static_cast<std::size_t>(model_->threads());
    expect_peak(options_of("h2o", 4), 4U * rows + 12U * heads);
}

// One after the other: the session's figure, the meter of the cache, and the spans added up.
void expect_counted(Session& session, const std::string& label) {
    const CacheStats stats = session.stats();
    const Session::Impl& impl = session.impl();
    std::size_t walked = 0;
    for (const SessionLayer& layer : impl.layers) {
        walked += layer.store->bytes();
    }
    const auto bytes = static_cast<double>(stats.bytes);
    EXPECT_EQ(walked, stats.bytes) << label;
    EXPECT_EQ(impl.cache.now(), stats.allocated_bytes) << label;
    EXPECT_EQ(impl.policy.now(), stats.policy_bytes) << label;
    EXPECT_EQ(impl.work.now(), 0U) << label;
    EXPECT_NEAR(static_cast<double>(stats.allocated_bytes), bytes, 0.01 * bytes) << label;
    EXPECT_GE(stats.bytes_peak, stats.bytes) << label;
}

TEST_F(Memory, BytesEqualWhatIsAllocated) {
    tokens_.resize(300);
    for (const char* method : {"full", "snapkv"}) {
        for (const char* format : {"none", "kivi", "hqq", "kvquant", "layerquant"}) {
            for (const int bits : {16, 8, 4, 2}) {
                const bool all = std::string(method) == "full";
                if ((std::string(format) == "none" && bits != 16) || (all && bits != 4)) {
                    continue;
                }
                CacheOptions options = options_of(method, bits);
                options.quant_method = format;
                options.max_capacity_prompts = all ? 0 : 128;
                const std::string label =
                    std::string(method) + " " + format + " " + std::to_string(bits) + " bits";
                Session session(model_, options);
                session.prefill(tokens_);
                expect_counted(session, label);
                for (int i = 0; i < 200; ++i) {
                    session.decode(tokens_[static_cast<std::size_t>(i)]);
                }
                expect_counted(session, label + ", decoded");
            }
        }
    }
}

// Eight caches side by side take the memory they say: the figure is not only bookkeeping.
TEST_F(Memory, TheProcessTakesWhatTheCacheSays) {
    tokens_.resize(3000);
    Session session(model_, options_of("full", 4));
    session.prefill(tokens_);
    malloc_trim(0);  // or the copies would reuse pages that prefill freed and malloc kept
    const std::size_t before = resident_bytes();
    std::vector<Session> copies;
    for (int i = 0; i < 8; ++i) {
        copies.push_back(session.clone());
    }
    const auto said = static_cast<double>(8 * session.stats().allocated_bytes);
    EXPECT_NEAR(static_cast<double>(resident_bytes() - before), said, 0.05 * said + kMiB);
}

}  // namespace
}  // namespace winnow
