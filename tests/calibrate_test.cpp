// Offline levels for kvquant: the weighted fit, the file, and what a session makes of it.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "cache/codebook.h"
#include "engine/codebook_file.h"
#include "engine/session_impl.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using Json = nlohmann::json;

double weighted_error(const std::vector<WeightedSample>& samples, const float* levels, int bits) {
    const Nearest nearest(levels, bits);
    double error = 0.0;
    for (const WeightedSample& sample : samples) {
        const double apart = static_cast<double>(sample.value - levels[nearest(sample.value)]);
        error += static_cast<double>(sample.weight) * apart * apart;
    }
    return error;
}

TEST(WeightedCodebook, FollowsTheWeights) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> even(-1.0F, 1.0F);
    std::vector<WeightedSample> samples;
    std::vector<float> alike;
    for (int i = 0; i < 4000; ++i) {
        const float x = even(random);
        samples.push_back({x, x > 0.5F ? 100.0F : 1.0F});
        alike.push_back(x);
    }
    for (const int bits : {2, 3, 4}) {
        std::vector<float> weighted(16), plain(16);
        fit_codebook(samples, bits, weighted.data());
        fit_codebook(alike, bits, plain.data());
        EXPECT_LT(weighted_error(samples, weighted.data(), bits),
                  0.5 * weighted_error(samples, plain.data(), bits));
        EXPECT_TRUE(std::is_sorted(weighted.begin(), weighted.begin() + (1 << bits)));
    }
    std::vector<WeightedSample> nobody{{-0.5F, 0.0F}, {0.5F, 0.0F}};
    float levels[4];
    fit_codebook(nobody, 2, levels);
    for (const float level : levels) EXPECT_TRUE(std::isfinite(level));
}

class Calibrate : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        model_ = load("winnow_calibrate_test.gguf", 1);
        text_ = calibrate_kvquant(model_, tokens(600));
    }
    static void TearDownTestSuite() { model_.reset(); }

    static std::shared_ptr<const Model> load(const std::string& name, unsigned seed) {
        const std::string path = ::testing::TempDir() + name;
        testing::TinyModelOptions options;
        options.seed = seed;
        testing::write_tiny_gguf(path, options);
        auto model = Model::load(path, {.threads = 1});
        model->sha256();
        std::remove(path.c_str());
        return model;
    }
    static std::vector<std::int32_t> tokens(int count) {
        std::vector<std::int32_t> result;
        for (int i = 0; i < count; ++i) {
            result.push_back((i * 37 + i * i / 7) % model_->info().vocabulary);
        }
        return result;
    }
    static std::string file(const std::string& text) {
        const std::string path = ::testing::TempDir() + "winnow_calibrate_test.json";
        std::ofstream(path, std::ios::binary) << text;
        return path;
    }
    static CacheOptions options(int bits, const std::string& path) {
        CacheOptions o;
        o.quant_method = "kvquant";
        o.nbits = bits;
        o.kvquant_codebook = path;
        return o;
    }
    static void expect_refused(const std::string& text, const std::string& part,
                               const CacheOptions& o) {
        try {
            const Session session(model_, o);
            ADD_FAILURE() << "accepted: " << text.substr(0, 80);
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::failure) << error.what();
            EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
            EXPECT_NE(std::string(error.what()).find(".json"), std::string::npos) << error.what();
        }
    }

    static std::shared_ptr<const Model> model_;
    static std::string text_;
};

std::shared_ptr<const Model> Calibrate::model_;
std::string Calibrate::text_;

TEST_F(Calibrate, WritesLevelsOfEveryWidthAndLayer) {
    const Json json = Json::parse(text_);
    EXPECT_EQ(json["model"]["sha256"], model_->sha256());
    EXPECT_EQ(json["tokens"], 600);
    for (const int bits : {2, 3, 4, 8}) {
        const Json& layers = json["levels"][std::to_string(bits)];
        ASSERT_EQ(layers.size(), static_cast<std::size_t>(model_->info().layers));
        for (const Json& layer : layers) {
            for (const char* side : {"k", "v"}) {
                const auto levels = layer[side].get<std::vector<float>>();
                ASSERT_EQ(levels.size(), std::size_t{1} << bits);
                EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
                EXPECT_LT(levels.front(), -0.3F);
                EXPECT_GT(levels.back(), 0.3F);
                EXPECT_LE(std::fabs(levels.back()), 1.01F);
            }
        }
    }
    EXPECT_EQ(text_, calibrate_kvquant(model_, tokens(600))) << "not repeatable";
}

TEST_F(Calibrate, ASessionUsesTheFilesLevels) {
    const std::string path = file(text_);
    const Json json = Json::parse(text_);
    CacheOptions o = options(3, path);
    o.nbits_v = 2;
    Session session(model_, o), own(model_, options(3, ""));
    for (Session* each : {&session, &own}) each->prefill(tokens(300));
    std::remove(path.c_str());
    const float* side = session.impl().layers[1].store->side_data(0);
    const auto k = json["levels"]["3"][1]["k"].get<std::vector<float>>();
    const auto v = json["levels"]["2"][1]["v"].get<std::vector<float>>();
    EXPECT_TRUE(std::equal(k.begin(), k.end(), side));
    EXPECT_TRUE(std::equal(v.begin(), v.end(), side + 8));
    EXPECT_FALSE(std::equal(k.begin(), k.end(), own.impl().layers[1].store->side_data(0)));
    EXPECT_EQ(session.options().kvquant_codebook, path);
    // A copy and a second prompt do not need the file again.
    Session copy = session.clone();
    copy.prefill(tokens(40));
    EXPECT_TRUE(std::equal(k.begin(), k.end(), copy.impl().layers[1].store->side_data(0)));
}

TEST_F(Calibrate, BadAndForeignFilesAreRefused) {
    const auto change = [](const std::function<void(Json&)>& with) {
        Json json = Json::parse(text_);
        with(json);
        return json.dump();
    };
    const auto nest = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
    const std::vector<std::pair<std::string, std::string>> cases{
        {"", "JSON"},
        {"{", "JSON"},
        {"[1]", "JSON"},
        {nest(100000), "JSON"},
        {std::string("{\"format\": \"\xff\"}"), "JSON"},
        {change([](Json& j) { j["format"] = 1; }), "'format'"},
        {change([](Json& j) { j["format"] = "other"; }), "'format'"},
        {change([](Json& j) { j["version"] = 2; }), "'version'"},
        {change([](Json& j) { j.erase("model"); }), "'model'"},
        {change([](Json& j) { j["model"] = 1; }), "'model'"},
        {change([](Json& j) { j["model"].erase("sha256"); }), "'sha256'"},
        {change([](Json& j) { j["model"]["sha256"] = "00"; }), "another model"},
        {change([](Json& j) { j["levels"] = 3; }), "'levels'"},
        {change([](Json& j) { j["levels"].erase("4"); }), "4 bits"},
        {change([](Json& j) { j["levels"]["4"].erase(0); }), "layers"},
        {change([](Json& j) { j["levels"]["4"][1].erase("v"); }), "'levels.4[1]'"},
        {change([](Json& j) { j["levels"]["4"][1]["v"].push_back(2.0); }), "'levels.4[1].v'"},
        {change([](Json& j) { j["levels"]["4"][1]["v"][0] = "x"; }), "'levels.4[1].v'"},
        {change([](Json& j) { j["levels"]["4"][1]["v"][0] = 1e30; }), "65504"},
        {change([](Json& j) { j["levels"]["4"][0]["k"][0] = 5.0; }), "ascending"},
        {change([](Json& j) { j["levels"]["4"][0]["k"][0] = nullptr; }), "'levels.4[0].k'"},
    };
    for (const auto& [text, part] : cases) {
        expect_refused(text, part, options(4, file(text)));
    }
    const std::string path = file(text_);
    expect_refused("no file", "cannot be read", options(4, path + "gone.json"));
    const auto other = load("winnow_calibrate_other.gguf", 2);
    EXPECT_THROW(Session(other, options(4, path)), Error);
    std::remove(path.c_str());
    CacheOptions o = options(4, path);
    o.quant_method = "kivi";
    try {
        validate(o);
        ADD_FAILURE() << "kivi took a codebook";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage);
    }
}

TEST_F(Calibrate, ShortTextsAndStoppingAreErrors) {
    EXPECT_THROW(calibrate_kvquant(model_, tokens(255)), Error);
    int calls = 0;
    try {
        calibrate_kvquant(model_, tokens(600), [&](const Progress&) { return ++calls < 2; });
        ADD_FAILURE() << "did not stop";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::stopped);
    }
}

}  // namespace
}  // namespace winnow
