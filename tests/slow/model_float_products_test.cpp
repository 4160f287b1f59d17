// Real models as they are, beside a libllama that does not round activations to 8 bits.
//
// libllama's own products round the activations to 8 bits where weights are quantised, and Winnow's
// prefill does not. ggml's BLAS device is the configuration of libllama without that rounding. It
// cannot be taken out of a process again, so this is a program of its own; model_real_test compares
// with the default.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "support/reference_blas.h"
#include "support/reference_llama.h"
#include "support/test_files.h"

namespace winnow {
namespace {

using testing::Agreement;
using testing::ReferenceLlama;

constexpr int kTokens = 1024;
constexpr int kChunk = 512;

void print(const char* what, const Agreement& agreement) {
    std::printf("  %-34s top-1 agreement %6.2f %%, mean KL %.2e, worst %.2e, %d tokens\n", what,
                100.0 * agreement.top1(), agreement.mean_kl(), agreement.worst_kl(),
                agreement.positions());
    std::fflush(stdout);
}

struct Case {
    std::string path;
    std::shared_ptr<const Model> model;
    std::vector<std::int32_t> tokens;
    std::vector<std::vector<float>> rounded;  // libllama's default logits, one chunk
};

Case read_default(const std::string& path, const std::string& text) {
    Case each{.path = path, .model = Model::load(path), .tokens = {}, .rounded = {}};
    each.tokens = each.model->tokenize(text, false, false);
    each.tokens.resize(kTokens);
    ReferenceLlama reference(path, kTokens, each.model->threads());
    reference.start(each.tokens);
    for (int i = 0; i < kChunk; ++i) {
        const std::span<const float> logits = reference.logits(i);
        each.rounded.emplace_back(logits.begin(), logits.end());
    }
    return each;
}

void compare(const Case& each) {
    ReferenceLlama reference(each.path, kTokens, each.model->threads());
    reference.start(each.tokens);
    Session session(each.model);
    Agreement ours, rounding, ours_of_rounded;
    session.score(each.tokens, [&](int i, std::span<const float> logits) {
        ours.add(reference.logits(i), logits);
        if (i < kChunk) {
            rounding.add(reference.logits(i), each.rounded[i]);
            ours_of_rounded.add(each.rounded[i], logits);
        }
    });
    std::printf("%s\n", each.path.substr(each.path.rfind('/') + 1).c_str());
    print("winnow beside libllama with BLAS", ours);
    print("libllama's default beside that", rounding);
    print("winnow beside libllama's default", ours_of_rounded);
    EXPECT_EQ(ours.positions(), kTokens);
    EXPECT_GE(ours.top1(), 0.98);
    EXPECT_LE(ours.mean_kl(), 2e-3);
    // The device is used, and it is the default that differs.
    EXPECT_GT(rounding.mean_kl(), 4 * ours.mean_kl());
}

TEST(FloatProducts, FilesAsTheyAreEqualLibllama) {
    const std::string text = testing::english_text(8 * kTokens);
    if (text.empty()) {
        GTEST_SKIP() << testing::missing_data("haystack") << ", or text files in examples/";
    }
    std::vector<Case> cases;
    for (const char* start : {"SmolLM2-135M", "qwen2.5-"}) {
        const std::string path = testing::find_model(start);
        if (path.empty()) {
            std::printf("%s\n", testing::missing_model(start).c_str());
        } else {
            cases.push_back(read_default(path, text));
        }
    }
    if (cases.empty()) {
        GTEST_SKIP() << testing::missing_model("SmolLM2-135M");
    }
    if (!testing::use_blas_in_libllama()) {
        GTEST_SKIP() << "needs a build with a BLAS that has cblas.h";
    }
    for (const Case& each : cases) {
        compare(each);
    }
}

}  // namespace
}  // namespace winnow
