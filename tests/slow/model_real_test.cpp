// Real models beside libllama, on English: the full cache at 16 bits changes nothing that matters.
// libllama rounds activations to 8 bits for its products, so some difference remains.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cmath>
#include <cstdio>

#include "support/reference_llama.h"
#include "support/test_files.h"

namespace winnow {
namespace {

constexpr std::size_t kTokens = 1024;

void expect_close_to_libllama(const std::string& start) {
    const std::string path = testing::find_model(start);
    if (path.empty()) {
        GTEST_SKIP() << testing::missing_model(start);
    }
    const std::string text = testing::english_text(8 * kTokens);
    if (text.empty()) {
        GTEST_SKIP() << testing::missing_data("haystack") << ", or text files in examples/";
    }
    const auto model = Model::load(path);
    std::vector<std::int32_t> tokens = model->tokenize(text, false, false);
    ASSERT_GE(tokens.size(), kTokens);
    tokens.resize(kTokens);
    testing::ReferenceLlama reference(path, static_cast<int>(kTokens), model->threads());
    reference.start(tokens);

    Session session(model);
    testing::Agreement agreement;
    std::vector<float> last;
    session.score(tokens, [&](int i, std::span<const float> logits) {
        agreement.add(reference.logits(i), logits);
        last.assign(logits.begin(), logits.end());
    });
    std::printf("%s: %d tokens, top-1 agreement %.2f %%, mean KL %.2e, worst %.2e\n", start.c_str(),
                agreement.positions(), 100.0 * agreement.top1(), agreement.mean_kl(),
                agreement.worst_kl());
    EXPECT_EQ(agreement.positions(), static_cast<int>(kTokens));
    EXPECT_GE(agreement.top1(), 0.98);
    EXPECT_LE(agreement.mean_kl(), 2e-3);

    // A prefill ends where scoring does; ggml's products may round the last row differently.
    session.prefill(tokens);
    ASSERT_EQ(session.logits().size(), last.size());
    float most = 0.0F;
    for (std::size_t i = 0; i < last.size(); ++i) {
        most = std::max(most, std::abs(session.logits()[i] - last[i]));
    }
    EXPECT_LE(most, 1e-3F);
}

TEST(RealModel, SmolLM2) {
    expect_close_to_libllama("SmolLM2-135M");
}

TEST(RealModel, Qwen2) {
    expect_close_to_libllama("qwen2.5-");
}

}  // namespace
}  // namespace winnow
