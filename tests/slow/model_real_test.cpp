// Real models beside libllama, on English, with the full cache at 16 bits.
//
// Products with quantised weights round the activations to 8 bits, and that rounding amplifies any
// difference: libllama beside itself, its cache in f32 instead of f16, already differs by a mean KL
// of some 1e-3. So each model is compared twice: its file as it is, where we must be as close to
// libllama as libllama is to itself, and its weights written out as float32, where nothing is
// rounded to 8 bits and the two must agree. model_float_products_test compares the files as they
// are with a libllama that does not round.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cmath>
#include <cstdio>
#include <filesystem>

#include "support/float_copy.h"
#include "support/gguf_refusal.h"
#include "support/reference_llama.h"
#include "support/test_files.h"

namespace winnow {
namespace {

using testing::Agreement;
using testing::ReferenceCache;
using testing::ReferenceLlama;

constexpr std::size_t kTokens = 1024;

void print(const char* what, const Agreement& agreement) {
    std::printf("  %-34s top-1 agreement %6.2f %%, mean KL %.2e, worst %.2e, %d tokens\n", what,
                100.0 * agreement.top1(), agreement.mean_kl(), agreement.worst_kl(),
                agreement.positions());
    std::fflush(stdout);
}

class RealModel : public ::testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        path_ = testing::find_model(GetParam());
        if (path_.empty()) {
            GTEST_SKIP() << testing::missing_model(GetParam());
        }
        const std::string text = testing::english_text(8 * kTokens);
        if (text.empty()) {
            GTEST_SKIP() << testing::missing_data("haystack") << ", or text files in examples/";
        }
        tokens_ = Model::load(path_)->tokenize(text, false, false);
        ASSERT_GE(tokens_.size(), kTokens);
        tokens_.resize(kTokens);
    }

    std::string path_;
    std::vector<std::int32_t> tokens_;
};

TEST_P(RealModel, IsAsCloseToLibllamaAsLibllamaIsToItself) {
    const auto model = Model::load(path_);
    const int context = static_cast<int>(kTokens);
    ReferenceLlama reference(path_, context, model->threads(), ReferenceCache::f16);
    ReferenceLlama other(path_, context, model->threads(), ReferenceCache::f32);
    reference.start(tokens_);
    other.start(tokens_);
    Session session(model);
    Agreement ours, own;
    std::vector<float> last;
    session.score(tokens_, [&](int i, std::span<const float> logits) {
        const std::span<const float> expected = reference.logits(i);
        ours.add(expected, logits);
        own.add(expected, other.logits(i));
        last.assign(logits.begin(), logits.end());
    });
    std::printf("%s\n", GetParam());
    print("winnow beside libllama", ours);
    print("libllama, cache f32 beside f16", own);
    EXPECT_EQ(ours.positions(), context);
    EXPECT_LE(ours.mean_kl(), std::max(2e-3, 1.2 * own.mean_kl()));
    EXPECT_GE(ours.top1(), std::min(0.98, own.top1() - 0.015));

    // A prefill ends where scoring does; its last chunk is a product of other shape.
    session.prefill(tokens_);
    ASSERT_EQ(session.logits().size(), last.size());
    Agreement end;
    end.add(last, session.logits());
    EXPECT_LE(end.mean_kl(), 1e-5);
}

TEST_P(RealModel, EqualsLibllamaInFloat32) {
    const testing::Folder folder;
    const std::string path = folder.file("float32.gguf");
    if (std::filesystem::space(folder.file("")).available < std::uintmax_t{4} << 30) {
        GTEST_SKIP() << "needs 4 GiB free in " << folder.file("");
    }
    testing::write_float_copy(path_, path);
    const auto model = Model::load(path);
    const int context = static_cast<int>(kTokens);
    std::printf("%s as float32\n", GetParam());
    for (const auto& [cache, most_kl] :
         {std::pair(ReferenceCache::rounded, 1e-6), std::pair(ReferenceCache::f16, 1e-4)}) {
        ReferenceLlama reference(path, context, model->threads(), cache);
        reference.start(tokens_);
        Session session(model);
        Agreement agreement;
        session.score(tokens_, [&](int i, std::span<const float> logits) {
            agreement.add(reference.logits(i), logits);
        });
        print(cache == ReferenceCache::f16 ? "libllama, cache f16" : "libllama, rounded as ours is",
              agreement);
        EXPECT_LE(agreement.mean_kl(), most_kl);
        EXPECT_GE(agreement.top1(), 0.99);
    }
}

INSTANTIATE_TEST_SUITE_P(Models, RealModel, ::testing::Values("SmolLM2-135M", "qwen2.5-"),
                         [](const auto& each) {
                             return std::string(each.param).substr(0, 4) == "Smol" ? "SmolLM2"
                                                                                   : "Qwen";
                         });

}  // namespace
}  // namespace winnow
