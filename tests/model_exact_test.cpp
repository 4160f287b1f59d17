// The model is exact: tiny random float32 files of every supported shape against libllama, which
// reads the same file. Real models are in slow/model_real_test.cpp.
//
// Our cache holds K and V as f16, and our products are float32. The reference that computes the
// same is libllama in float32 with its cache rounded to f16: there the bound is 1e-8. Beside plain
// libllama, at f32 (which does not round K and V) or at f16 (which rounds the query and the softmax
// weights too), one side's f16 rounding remains, worth about 5e-8 on these peaky random models.
#include <ggml.h>
#include <gguf.h>
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cmath>
#include <functional>
#include <random>
#include <utility>

#include "support/gguf_refusal.h"
#include "support/reference_llama.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using testing::Agreement;
using testing::ReferenceCache;
using testing::ReferenceLlama;
using testing::TinyModelOptions;
using testing::TinyRope;

constexpr int kTokens = 150;

struct Case {
    const char* name;
    TinyModelOptions model;
};

TinyModelOptions shape(const char* architecture, int query_heads, int kv_heads, int head_dim) {
    TinyModelOptions options;
    options.architecture = architecture;
    options.query_heads = query_heads;
    options.kv_heads = kv_heads;
    options.head_dim = head_dim;
    options.embed = query_heads * head_dim;
    options.ff = 2 * options.embed;
    options.qkv_bias = std::string(architecture) == "qwen2";
    return options;
}

TinyModelOptions tied(TinyModelOptions options) {
    options.tied_embeddings = true;
    return options;
}

TinyModelOptions biased(TinyModelOptions options) {
    options.qkv_bias = true;
    options.key_bias_scale = 4.0F;
    return options;
}

TinyModelOptions scaled(TinyModelOptions options, TinyRope rope) {
    options.rope = rope;
    options.context = 512;  // so that yarn's and llama3's original context is 128
    return options;
}

std::vector<Case> cases() {
    return {
        {"llama_r1", shape("llama", 4, 4, 32)},
        {"llama_r2", shape("llama", 4, 2, 32)},
        {"llama_r3", shape("llama", 6, 2, 32)},
        {"llama_d64_tied", tied(shape("llama", 3, 1, 64))},
        {"llama_biases", biased(shape("llama", 4, 2, 32))},
        {"llama_linear", scaled(shape("llama", 4, 2, 32), TinyRope::linear)},
        {"llama_yarn", scaled(shape("llama", 4, 2, 64), TinyRope::yarn)},
        {"llama_llama3", scaled(shape("llama", 4, 2, 64), TinyRope::llama3)},
        {"qwen2_r1", shape("qwen2", 2, 2, 64)},
        {"qwen2_r2", tied(shape("qwen2", 4, 2, 32))},
        {"qwen2_r3", shape("qwen2", 6, 2, 32)},
        {"qwen2_large_k", biased(shape("qwen2", 4, 2, 64))},
        {"qwen2_linear", scaled(shape("qwen2", 4, 2, 32), TinyRope::linear)},
        {"qwen2_yarn", scaled(shape("qwen2", 4, 2, 64), TinyRope::yarn)},
    };
}

std::vector<std::int32_t> random_tokens(int count, int vocabulary, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
    for (std::int32_t& token : tokens) {
        token = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
    }
    return tokens;
}

// All positions through Session::score, and again by a prefill and single steps.
void compare(const std::string& path, ReferenceCache cache, Agreement& scored, Agreement& decoded) {
    const auto model = Model::load(path, {.threads = 1});
    const auto tokens = random_tokens(kTokens, model->info().vocabulary, 7);
    ReferenceLlama reference(path, 256, 1, cache);

    Session session(model, {}, {.batch = 64});
    reference.start(tokens);
    session.score(tokens, [&](int i, std::span<const float> logits) {
        scored.add(reference.logits(i), logits);
    });
    EXPECT_EQ(session.position(), 0) << "scoring changed the session";

    constexpr int kPrompt = 100;
    reference.start(tokens);
    session.prefill(std::span(tokens).first(kPrompt));
    decoded.add(reference.logits(kPrompt - 1), session.logits());
    for (int i = kPrompt; i < kTokens; ++i) {
        session.decode(tokens[static_cast<std::size_t>(i)]);
        decoded.add(reference.logits(i), session.logits());
    }
    // Scoring goes on where the session stands.
    const auto more = random_tokens(40, model->info().vocabulary, 8);
    std::vector<std::int32_t> all = tokens;
    all.insert(all.end(), more.begin(), more.end());
    reference.start(all);
    session.score(more, [&](int i, std::span<const float> logits) {
        scored.add(reference.logits(kTokens + i), logits);
    });
}

class ExactModel : public ::testing::TestWithParam<Case> {};

TEST_P(ExactModel, EqualsLibllama) {
    const testing::Folder folder;
    const std::string path = folder.file("tiny.gguf");
    testing::write_tiny_gguf(path, GetParam().model);
    for (const auto& [cache, most_kl] :
         {std::pair(ReferenceCache::rounded, 1e-8), std::pair(ReferenceCache::f32, 5e-7),
          std::pair(ReferenceCache::f16, 5e-7)}) {
        Agreement scored, decoded;
        compare(path, cache, scored, decoded);
        const std::string name = "pairing " + std::to_string(static_cast<int>(cache));
        EXPECT_LE(scored.mean_kl(), most_kl) << name;
        EXPECT_LE(decoded.mean_kl(), most_kl) << name;
        EXPECT_GE(scored.top1(), 0.98) << name;
        EXPECT_GE(decoded.top1(), 0.98) << name;
    }
}

INSTANTIATE_TEST_SUITE_P(Tiny, ExactModel, ::testing::ValuesIn(cases()),
                         [](const auto& each) { return std::string(each.param.name); });

// The tiny model's file with one more key, or another architecture.
std::string changed_file(const testing::Folder& folder,
                         const std::function<void(gguf_context*)>& change) {
    const std::string path = folder.file("tiny.gguf");
    testing::write_tiny_gguf(path, {});
    ggml_context* tensors = nullptr;
    gguf_context* from = gguf_init_from_file(path.c_str(), {.no_alloc = false, .ctx = &tensors});
    gguf_context* file = gguf_init_empty();
    gguf_set_kv(file, from);
    for (std::int64_t i = 0; i < gguf_get_n_tensors(from); ++i) {
        gguf_add_tensor(file, ggml_get_tensor(tensors, gguf_get_tensor_name(from, i)));
    }
    change(file);
    const std::string changed = folder.file("changed.gguf");
    EXPECT_TRUE(gguf_write_to_file(file, changed.c_str(), false));
    gguf_free(file);
    gguf_free(from);
    ggml_free(tensors);
    return changed;
}

void expect_refused(const std::function<void(gguf_context*)>& change,
                    const std::vector<std::string>& words) {
    const testing::Folder folder;
    const std::string path = changed_file(folder, change);
    const auto message = testing::refusal([&] { Model::load(path, {.threads = 1}); }, path);
    ASSERT_TRUE(message.has_value());
    for (const std::string& word : words) {
        EXPECT_NE(message->find(word), std::string::npos) << *message;
    }
}

TEST(ExactModel, ChangingNothingLoads) {
    const testing::Folder folder;
    const auto model = Model::load(changed_file(folder, [](gguf_context*) {}), {.threads = 1});
    EXPECT_EQ(model->info().architecture, "llama");
}

// Files that libllama runs, so that nothing but what they ask for is wrong with them.
void expect_only_we_refuse(const testing::TinyModelOptions& options,
                           const std::vector<std::string>& words) {
    const testing::Folder folder;
    const std::string path = folder.file("sound.gguf");
    testing::write_tiny_gguf(path, options);
    testing::ReferenceLlama reference(path, 64, 1);
    const std::vector<std::int32_t> tokens{5, 7, 11};
    reference.start(tokens);
    EXPECT_TRUE(std::isfinite(reference.logits(2)[0]));
    const auto message = testing::refusal([&] { Model::load(path, {.threads = 1}); }, path);
    ASSERT_TRUE(message.has_value());
    for (const std::string& word : words) {
        EXPECT_NE(message->find(word), std::string::npos) << *message;
    }
}

TEST(ExactModel, RefusesExpertsByName) {
    expect_only_we_refuse({.experts = 4}, {"mixture of experts", "llama.expert_count", "4"});
}

TEST(ExactModel, RefusesSlidingWindowsByName) {
    expect_only_we_refuse({.sliding_window = 512},
                          {"sliding window", "llama.attention.sliding_window", "512"});
}

TEST(ExactModel, RefusesOtherArchitecturesByName) {
    expect_refused(
        [](gguf_context* file) { gguf_set_val_str(file, "general.architecture", "gemma3"); },
        {"gemma3", "llama", "qwen2"});
}

}  // namespace
}  // namespace winnow
