// Answers in shared decode steps: the bits of answers one by one, for every size that is called
// exact and while sessions leave the batch.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "eval/answers.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow::eval {
namespace {

std::shared_ptr<const Model> tiny(const testing::Folder& folder, ggml_type type) {
    const std::string path = folder.file(ggml_type_name(type) + std::string(".gguf"));
    testing::write_tiny_gguf(path, {.head_dim = 64,
                                    .embed = 256,
                                    .ff = 512,
                                    .type = type,
                                    .tokenizer = testing::TinyTokenizer::byte_bpe});
    return Model::load(path, {.threads = 1});
}

// Sessions over caches and prompts of their own.
std::vector<Session> make_sessions(const std::shared_ptr<const Model>& model, int count) {
    std::vector<Session> sessions;
    for (int i = 0; i < count; ++i) {
        CacheOptions options;
        options.method = i % 3 == 0 ? "full" : "snapkv";
        options.max_capacity_prompts = i % 3 == 0 ? 0 : 48;
        options.quant_method = i % 2 == 0 ? "none" : "kivi";
        options.nbits = i % 2 == 0 ? 16 : 4;
        std::vector<std::int32_t> prompt;
        for (int t = 0; t < 60 + 7 * i; ++t) {
            prompt.push_back((t * 37 + i * 11) % 250);
        }
        sessions.emplace_back(model, options);
        sessions.back().prefill(prompt);
    }
    return sessions;
}

std::vector<Session*> pointers_to(std::vector<Session>& sessions) {
    std::vector<Session*> pointers;
    for (Session& session : sessions) {
        pointers.push_back(&session);
    }
    return pointers;
}

TEST(EvalAnswers, ExactBatchesGiveTheBitsOfSeparateAnswers) {
    const testing::Folder folder;
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
                                 GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K}) {
        const auto model = tiny(folder, type);
        constexpr int kSessions = 9;
        const int exact = exact_batch(model, kSessions);
        ASSERT_GE(exact, 1);
        ASSERT_LE(exact, kSessions);
        std::vector<Session> alone = make_sessions(model, kSessions);
        // A context that the longer prompts reach first, so that sessions leave one by one.
        const AnswerRules rules{.max_new_tokens = 24, .context = 130};
        std::vector<Answer> expected;
        for (Session& session : alone) {
            expected.push_back(answer_all({&session}, rules, 1, [](double) {})[0]);
        }
        std::set<int> lengths;
        for (const Answer& answer : expected) {
            lengths.insert(answer.generated);
        }
        EXPECT_GE(lengths.size(), 3U);
        EXPECT_GE(*lengths.rbegin(), 10);
        for (const int batch : std::set<int>{std::min(2, exact), std::min(3, exact), exact}) {
            std::vector<Session> together = make_sessions(model, kSessions);
            const std::vector<Answer> answers =
                answer_all(pointers_to(together), rules, batch, [](double) {});
            for (int i = 0; i < kSessions; ++i) {
                EXPECT_EQ(answers[i].reply, expected[i].reply);
                EXPECT_EQ(answers[i].generated, expected[i].generated);
                EXPECT_EQ(together[i].logits_hash(), alone[i].logits_hash())
                    << ggml_type_name(type) << ", " << batch << " of " << exact;
                EXPECT_EQ(together[i].stats().bytes, alone[i].stats().bytes);
            }
        }
    }
}

TEST(EvalAnswers, ANewlineEndsAnAnswerAndChecksMayStop) {
    const testing::Folder folder;
    const auto model = tiny(folder, GGML_TYPE_F32);
    std::vector<Session> sessions = make_sessions(model, 3);
    int checks = 0;
    const auto stop = [&](double share) {
        EXPECT_LE(share, 1.0);
        if (++checks == 3) {
            throw std::runtime_error("stop");
        }
    };
    EXPECT_THROW(answer_all(pointers_to(sessions), {.max_new_tokens = 9, .context = 999}, 2, stop),
                 std::runtime_error);
    std::vector<Session> again = make_sessions(model, 3);
    for (const Answer& answer : answer_all(
             pointers_to(again), {.max_new_tokens = 40, .context = 999, .stop_at_newline = true}, 3,
             [](double) {})) {
        EXPECT_EQ(answer.reply.find('\n'), std::string::npos);
    }
}

}  // namespace
}  // namespace winnow::eval
