// Sessions of a tiny model on disk, for the tests that save and load them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>
#include <winnow/session_file.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/tiny_engine.h"

namespace winnow::testing {

template <int kLayers>
class SessionFiles : public ::testing::Test {
  protected:
    using Tokens = std::vector<std::int32_t>;
    using Bytes = std::vector<std::byte>;

    static void SetUpTestSuite() {
        // Syncing takes long on a busy disk, and none of these tests pulls the plug.
        const std::string memory = "/dev/shm";
        folder_ = (std::filesystem::exists(memory) ? memory + "/" : ::testing::TempDir()) +
                  "winnow-session-" + std::to_string(getpid());
        std::filesystem::create_directories(folder_);
        const TinyModelOptions options{.layers = kLayers,
                                       .query_heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 32,
                                       .embed = 64,
                                       .ff = 64,
                                       .context = 4096};
        write_tiny_gguf(path("a.gguf"), options);
        TinyModelOptions other = options;
        other.seed = 2;
        write_tiny_gguf(path("b.gguf"), other);
        model_ = Model::load(path("a.gguf"), {.threads = 1});
    }
    static void TearDownTestSuite() {
        model_.reset();
        std::filesystem::remove_all(folder_);
    }
    static std::string path(const std::string& name) { return folder_ + "/" + name; }
    static Tokens prompt(int n, unsigned seed = 1) { return random_prompt(n, seed); }
    static CacheOptions snapkv() {
        CacheOptions o;
        o.method = "snapkv";
        o.max_capacity_prompts = 128;
        o.nbits = 4;
        return o;
    }
    // Decodes until a group is packed and evicted, reads a second prompt, decodes again.
    static std::string go_on(Session& session) {
        for (int i = 0; i < 40; ++i) {
            session.decode(i % 300);
        }
        session.prefill(prompt(70, 9));
        for (int i = 0; i < 10; ++i) {
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

    inline static std::string folder_;
    inline static std::shared_ptr<const Model> model_;
};

}  // namespace winnow::testing
