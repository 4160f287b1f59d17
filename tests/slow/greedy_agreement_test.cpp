// Greedy answers of the full cache beside libllama's, on 40 open questions whose answers hang by a
// hair: the weights are written out as float32, since rounding activations to 8 bits would sway
// most of them. libllama reads our answer behind the prompt: the answers are equal where it would
// have chosen each of our tokens itself.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "support/float_copy.h"
#include "support/gguf_refusal.h"
#include "support/reference_llama.h"
#include "support/test_files.h"

namespace winnow {
namespace {

constexpr int kPrompts = 40;
constexpr int kNewTokens = 12;
constexpr std::size_t kBytes = 400;  // of text in a prompt

std::int32_t best(std::span<const float> logits) {
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                     logits.begin());
}

// By how much the best logit leads the second.
float lead(std::span<const float> logits) {
    std::vector<float> two(2);
    std::partial_sort_copy(logits.begin(), logits.end(), two.begin(), two.end(), std::greater<>());
    return two[0] - two[1];
}

std::vector<std::int32_t> prompt_of(const Model& model, const std::string& piece) {
    const std::array<ChatMessage, 1> messages{
        {{"user", "Which words of this text matter most?\n\n" + piece}}};
    return model.tokenize(model.apply_chat_template(messages), true, true);
}

// The answer, end of sequence included.
std::vector<std::int32_t> answer(const std::shared_ptr<const Model>& model,
                                 const std::vector<std::int32_t>& prompt) {
    Session session(model);
    session.prefill(prompt);
    std::vector<std::int32_t> tokens;
    while (static_cast<int>(tokens.size()) < kNewTokens) {
        tokens.push_back(best(session.logits()));
        if (model->is_end_of_generation(tokens.back())) {
            break;
        }
        session.decode(tokens.back());
    }
    return tokens;
}

TEST(GreedyAgreement, AnswersEqualLibllamas) {
    const std::string path = testing::find_model("SmolLM2-135M");
    const std::string text = testing::english_text(kPrompts * kBytes);
    if (path.empty() || text.size() < kPrompts * kBytes) {
        GTEST_SKIP() << testing::missing_model("SmolLM2-135M") << "; "
                     << testing::missing_data("haystack");
    }
    const testing::Folder folder;
    const std::string floats = folder.file("floats.gguf");
    testing::write_float_copy(path, floats);
    const auto model = Model::load(floats);
    testing::ReferenceLlama reference(floats, 512, model->threads(),
                                      testing::ReferenceCache::rounded);
    int equal = 0;
    for (int i = 0; i < kPrompts; ++i) {
        const std::vector<std::int32_t> prompt =
            prompt_of(*model, text.substr(static_cast<std::size_t>(i) * kBytes, kBytes));
        const std::vector<std::int32_t> ours = answer(model, prompt);
        std::vector<std::int32_t> all = prompt;
        all.insert(all.end(), ours.begin(), ours.end());
        ASSERT_LE(all.size(), 512U);
        reference.start(all);
        const int first = static_cast<int>(prompt.size());
        bool same = true;
        for (int t = 0; same && t < static_cast<int>(ours.size()); ++t) {
            const std::span<const float> logits = reference.logits(first + t - 1);
            const std::int32_t theirs = best(logits);
            same = theirs == ours[t];
            if (!same) {
                std::printf("  prompt %d, token %d: '%s' here, '%s' there, whose lead is %.3f\n", i,
                            t, model->piece(ours[t]).c_str(), model->piece(theirs).c_str(),
                            lead(logits));
                std::fflush(stdout);
                EXPECT_LT(lead(logits), 0.1F);  // rounding sways a near tie alone
            }
        }
        equal += same ? 1 : 0;
    }
    std::printf("  %d of %d answers equal libllama's\n", equal, kPrompts);
    EXPECT_GE(equal, kPrompts * 95 / 100);
}

}  // namespace
}  // namespace winnow
