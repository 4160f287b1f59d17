// `winnow tune`: the search, the profile it writes, and planning by it.
#include "winnow/tune.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <winnow/plan.h>
#include <winnow/winnow.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>

#include "engine/profile.h"
#include "engine/session_impl.h"
#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

class Tune : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = fs::path(::testing::TempDir()) / ("winnow_tune_test" + std::to_string(getpid()));
        fs::create_directories(folder_ / "cache");
        setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
        path_ = (folder_ / "model.gguf").string();
        testing::write_tiny_gguf(path_, {.layers = 3,
                                         .query_heads = 2,
                                         .kv_heads = 1,
                                         .head_dim = 32,
                                         .embed = 64,
                                         .ff = 64,
                                         .context = 4096,
                                         .tokenizer = testing::TinyTokenizer::byte_bpe});
        model_ = Model::load(path_, {.threads = 1});
    }
    static void TearDownTestSuite() {
        model_.reset();
        fs::remove_all(folder_);
    }

    static std::vector<std::int32_t> text(int n) {
        std::vector<std::int32_t> tokens;
        for (int i = 0; i < n; ++i) {
            tokens.push_back((i * i / 5 + i * 17) % 300);
        }
        return tokens;
    }
    static TuneOptions small() { return {.prompt_tokens = 310, .forced = 10, .shares = {0.25}}; }
    static std::string tuned(const std::map<std::string, double>& known,
                             const std::function<bool(const TuneProgress&)>& progress) {
        return tune_profile(model_, text(960), small(), known, progress);
    }
    static Profile sample() {
        return {.model_name = "tiny",
                .sha256 = model_->sha256(),
                .shares = {3.0, 1.0, 1.0},
                .tiers = {{8, 4}, {3, 2}},
                .settings = {.score_error = 0.2, .value_error = 0.15},
                .points = {{.bytes = 4096, .share = 0.25, .kl_builtin = 2.0, .kl = 1.0}}};
    }
    static std::string file(const std::string& name, const std::string& content) {
        const fs::path path = folder_ / name;
        std::ofstream(path, std::ios::binary) << content;
        return path.string();
    }
    static CacheOptions within(int share, const std::string& profile) {
        CacheOptions o;
        o.kv_budget = std::to_string(model_->info().full_cache_bytes(600) /
                                     static_cast<std::uint64_t>(share));
        o.profile = profile;
        return o;
    }
    template <class F>
    static std::string message_of(F&& f) {
        try {
            f();
        } catch (const Error& error) {
            return error.what();
        }
        return "";
    }

    static fs::path folder_;
    static std::string path_;
    static std::shared_ptr<const Model> model_;
};

fs::path Tune::folder_;
std::string Tune::path_;
std::shared_ptr<const Model> Tune::model_;

TEST_F(Tune, AProfileSurvivesItsFile) {
    const Profile written = sample();
    const Profile read = read_profile(file("whole.json", write_profile(written)));
    EXPECT_EQ(read.model_name, written.model_name);
    EXPECT_EQ(read.sha256, written.sha256);
    EXPECT_EQ(read.shares, written.shares);
    EXPECT_EQ(read.tiers, written.tiers);
    EXPECT_EQ(read.settings.score_error, written.settings.score_error);
    EXPECT_EQ(read.settings.value_error, written.settings.value_error);
}

TEST_F(Tune, DamagedProfilesAreRefusedWithASentence) {
    const Json whole = Json::parse(write_profile(sample()));
    const auto refused = [&](const std::string& name, const std::function<void(Json&)>& damage) {
        Json json = whole;
        damage(json);
        const std::string path = file(name + ".json", json.dump());
        const std::string message = message_of([&] { Session(model_, within(4, path)); });
        EXPECT_NE(message.find(path), std::string::npos) << name << ": " << message;
        EXPECT_NE(message.find("winnow tune"), std::string::npos) << name << ": " << message;
        return message;
    };
    const auto names = [&](const std::string& name, const std::function<void(Json&)>& damage) {
        EXPECT_NE(refused(name, damage).find("'" + name), std::string::npos) << name;
    };
    names("format", [](Json& j) { j["format"] = "other"; });
    names("version", [](Json& j) { j["version"] = 2; });
    names("model", [](Json& j) { j["model"] = 3; });
    names("sha256", [](Json& j) { j["model"].erase("sha256"); });
    names("shares", [](Json& j) { j["shares"] = Json::array(); });
    names("shares[1]", [](Json& j) { j["shares"][1] = "x"; });
    names("shares[2]", [](Json& j) { j["shares"][2] = 0.0; });
    names("shares[0]", [](Json& j) { j["shares"][0] = 1e9; });
    names("tiers", [](Json& j) { j["tiers"] = Json::array(); });
    names("tiers", [](Json& j) { j["tiers"][0] = {8, 5}; });
    names("tiers", [](Json& j) { j["tiers"] = {{2, 2}, {8, 8}}; });
    names("tiers", [](Json& j) { j["tiers"][0] = {8, 4, 2}; });
    names("score_error", [](Json& j) { j["score_error"] = -1; });
    names("value_error", [](Json& j) { j.erase("value_error"); });
    EXPECT_NE(refused("other", [](Json& j) { j["model"]["sha256"] = std::string(64, '0'); })
                  .find("another model"),
              std::string::npos);
    EXPECT_NE(refused("layers", [](Json& j) { j["shares"].push_back(1.0); }).find("3 layers"),
              std::string::npos);
    const std::string text = write_profile(sample());
    for (std::size_t cut = 0; cut + 2 < text.size(); cut += 13) {
        const std::string path = file("cut.json", text.substr(0, cut));
        EXPECT_THROW(read_profile(path), Error) << cut;
    }
    EXPECT_THROW(read_profile((folder_ / "absent.json").string()), Error);
    EXPECT_THROW(read_profile(folder_.string()), Error);
}

TEST_F(Tune, PlanningKeepsToTheProfileAndTheBudget) {
    const std::string path = file("used.json", write_profile(sample()));
    const CacheOptions options = within(5, path);
    const auto bytes = std::stoull(options.kv_budget);
    Session session(model_, options);
    Session::Impl& s = session.impl();
    EXPECT_EQ(session.options().profile, path);
    EXPECT_EQ(s.plan.mixed.tiers, sample().tiers);
    EXPECT_NEAR(s.plan.mixed.layer_bytes[0], 0.6 * static_cast<double>(bytes), 1.0);
    EXPECT_NEAR(s.plan.mixed.layer_bytes[2], 0.2 * static_cast<double>(bytes), 1.0);
    const CachePlan planned = plan_cache(path_, options, 600);
    EXPECT_EQ(planned.cache.profile, path);
    EXPECT_EQ(planned.tiers.size(), 3U);
    session.prefill(text(600));
    std::set<std::pair<int, int>> bits;
    for (const PrecisionStats& at : session.stats().precisions) {
        bits.emplace(at.bits_k, at.bits_v);
    }
    EXPECT_TRUE(bits.contains({3, 2}) || bits.contains({8, 4}));
    EXPECT_FALSE(bits.contains({2, 2}));
    for (int i = 0; i < 120; ++i) {
        s.cache.reset_peak();
        s.policy.reset_peak();
        s.memory.reset_peak();
        session.decode(i % 300);
        ASSERT_LE(std::min(s.cache.peak() + s.policy.peak(), s.memory.peak()), bytes) << i;
    }
    EXPECT_GT(session.stats().kept[0], 2.0 * session.stats().kept[1]);
    Session copy = session.clone();
    copy.decode(3);
    session.decode(3);
    EXPECT_EQ(copy.logits_hash(), session.logits_hash());
    EXPECT_EQ(copy.options().profile, path);
    // One width that the user asks for stays.
    CacheOptions width = options;
    width.nbits = 4;
    EXPECT_EQ(Session(model_, width).impl().plan.mixed.tiers,
              (std::vector<std::pair<int, int>>{{4, 4}}));
    CacheOptions other = options;
    other.method = "snapkv";
    EXPECT_NE(message_of([&] { validate(other); }).find("--profile"), std::string::npos);
}

TEST_F(Tune, WhatTuneLeavesIsFound) {
    const std::string path = profile_path(*model_);
    EXPECT_EQ(Session(model_, within(5, "")).options().profile, "none");
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << write_profile(sample());
    Session session(model_, within(5, ""));
    EXPECT_EQ(session.options().profile, path);
    EXPECT_EQ(session.impl().plan.mixed.shares, sample().shares);
    EXPECT_EQ(plan_cache(path_, within(5, ""), 600).cache.profile, path);
    EXPECT_EQ(Session(model_, within(5, "none")).options().profile, "none");
    CacheOptions snapkv;
    snapkv.method = "snapkv";
    EXPECT_EQ(Session(model_, snapkv).options().profile, "");
    fs::remove(path);
}

// A search cut off at any trial goes on to the same profile, and measures nothing twice.
TEST_F(Tune, ASearchGoesOnWhereItStopped) {
    std::map<std::string, double> all;
    const std::string whole = tuned({}, [&](const TuneProgress& at) {
        if (at.trial != nullptr) {
            EXPECT_TRUE(all.emplace(at.trial->name, at.trial->kl).second) << at.trial->name;
            EXPECT_LE(at.done, at.trials);
        }
        return true;
    });
    ASSERT_GT(all.size(), 20U);
    const Json profile = Json::parse(whole);
    ASSERT_EQ(profile["points"].size(), 1U);
    EXPECT_LE(profile["points"][0]["held_out_kl"], profile["points"][0]["held_out_kl_builtin"]);
    std::map<std::string, double> known;
    for (const std::size_t stop : {1U, 9U}) {
        std::size_t fresh = 0;
        const auto until = [&](const TuneProgress& at) {
            if (at.trial == nullptr) {
                return true;
            }
            known.emplace(at.trial->name, at.trial->kl);
            return ++fresh < stop;
        };
        try {
            tuned(known, until);
            FAIL() << "it did not stop";
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::stopped);
        }
    }
    EXPECT_EQ(known.size(), 10U);
    std::size_t fresh = 0;
    const std::string resumed = tuned(known, [&](const TuneProgress& at) {
        fresh += at.trial != nullptr ? 1 : 0;
        return true;
    });
    EXPECT_EQ(resumed, whole);
    EXPECT_EQ(fresh + known.size(), all.size());
    EXPECT_THROW(tune_profile(model_, text(900), small(), {}, {}), Error);
}

TEST_F(Tune, CtrlCAndMistakesAreTold) {
    const testing::Program program;
    const std::string out = (folder_ / "stopped.json").string();
    std::string words;
    for (int i = 0; i < 700; ++i) {
        words += "word " + std::to_string(i * i % 97) + " and ";
    }
    const std::string corpus = file("corpus.txt", words);
    const pid_t child = program.start({"tune", "-m", path_, "-f", corpus, "-o", out, "-t", "1"});
    ASSERT_GT(child, 0);
    for (int i = 0; i < 5000 && !fs::exists(out + ".trials"); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    kill(child, SIGINT);
    EXPECT_EQ(program.finish(child).code, 130);
    EXPECT_FALSE(fs::exists(out));
    expect_error(program.run({"tune", "-m", path_, "-f", file("few.txt", "few"), "-o", out}), 2,
                 "tokens");
    expect_error(program.run({"tune", "-m", path_, "-o", "/no/such/profile.json"}), 1, "-o");
    const testing::ProgramResult plan =
        program.run({"plan", "-m", path_, "--kv-budget", "64KiB", "--context", "600", "--profile",
                     file("plan.json", write_profile(sample()))});
    EXPECT_EQ(plan.code, 0) << plan.err;
    EXPECT_NE(plan.out.find("plan.json"), std::string::npos) << plan.out;
}

}  // namespace
}  // namespace winnow
