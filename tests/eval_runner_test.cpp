// Whole runs over a tiny model: replies equal those of separate sessions, and fidelity is exact.
#include <gtest/gtest.h>

#include <algorithm>

#include "eval/results.h"
#include "support/eval_fixture.h"
#include "text/utf8.h"

namespace winnow::eval {
namespace {

// A whole run: every line's reply and bytes are those of a session by itself, a second call does
// nothing, and a shard does its share.
TEST_F(Eval, RepliesEqualSeparateSessions) {
    const Settings s = needle_settings();
    const Suite& suite = find_suite("needle");
    const auto list = configs("method=snapkv,h2o; cap=96; quant=kivi:16,4", s);
    const PromptSet prompts = suite.open(s, model_);
    ASSERT_EQ(prompts.ids.size(), 8U);
    RunnerOptions options;
    const OrderedJson run = describe_run(suite, s, prompts, list, *model_, options);
    ResultFile file(folder_->file("run"), {}, run, list.size());
    run_suite(model_, run, prompts, list, options, file);
    const std::vector<OrderedJson> lines = read_result_lines(file.folder());
    ASSERT_EQ(lines.size(), prompts.ids.size() * list.size());
    for (std::size_t i = 0; i < 2 * list.size(); ++i) {
        const Prompt prompt = prompts.make(i / list.size());
        const Config& config = list[i % list.size()];
        EXPECT_EQ(lines[i]["prompt"], prompt.id);
        EXPECT_EQ(lines[i]["config"], config.id);
        Session session(model_, config.options);
        session.prefill(prompt.tokens);
        std::string reply;
        int count = 0;
        while (count < prompt.max_new_tokens) {
            const std::span<const float> logits = session.logits();
            const auto token = static_cast<std::int32_t>(
                std::max_element(logits.begin(), logits.end()) - logits.begin());
            if (model_->is_end_of_generation(token)) {
                break;
            }
            reply += model_->piece(token);
            session.decode(token);
            ++count;
            if (prompt.stop_at_newline && reply.find('\n') != std::string::npos) {
                reply.resize(reply.find('\n'));
                break;
            }
        }
        EXPECT_EQ(lines[i]["tokens"]["generated"], count);
        EXPECT_EQ(lines[i]["kv"]["bytes"], session.stats().bytes) << config.id;
        EXPECT_EQ(lines[i]["reply"], sanitize_utf8(reply)) << config.id;
    }
    int calls = 0;
    run_suite(model_, run, prompts, list, options, file,
              [&](const Status&) { return ++calls > 0; });
    EXPECT_EQ(calls, 0);
}

TEST_F(Eval, StoppingLosesThePromptInWorkAlone) {
    const Settings s = needle_settings();
    const Suite& suite = find_suite("needle");
    const auto list = configs("method=snapkv; cap=96", s);
    const PromptSet prompts = suite.open(s, model_);
    RunnerOptions options;
    const OrderedJson run = describe_run(suite, s, prompts, list, *model_, options);
    ResultFile file(folder_->file("stopped"), {}, run, list.size());
    EXPECT_THROW(run_suite(model_, run, prompts, list, options, file,
                           [](const Status& at) { return at.done < 2 || at.share < 0.3; }),
                 Error);
    EXPECT_EQ(read_result_lines(file.folder()).size(), 2 * list.size());
    EXPECT_EQ(file.done_count(), 2U);
}

TEST_F(Eval, TheFingerprintKnowsWhatChangesResults) {
    const Suite& suite = find_suite("needle");
    const auto print = [&](Settings s, const std::string& sweep, int batch) {
        RunnerOptions options;
        options.session.batch = batch;
        options.command = sweep;
        const auto list = configs(sweep, s);
        return describe_run(suite, s, suite.open(s, model_), list, *model_, options)["fingerprint"];
    };
    const Settings s = needle_settings();
    RunnerOptions shared;
    shared.decode_batch = 40;
    const auto caches = configs("method=snapkv; cap=96", s);
    EXPECT_EQ(describe_run(suite, s, suite.open(s, model_), caches, *model_,
                           shared)["settings"]["decode_batch"],
              40);
    const auto plain = print(s, "method=snapkv; cap=96", 512);
    EXPECT_EQ(plain, print(s, "method=snapkv;cap=96;", 512));
    EXPECT_NE(plain, print(s, "method=snapkv; cap=97", 512));
    EXPECT_NE(plain, print(s, "method=snapkv; cap=96", 64));
    Settings other = s;
    other.depths = 3;
    EXPECT_NE(plain, print(other, "method=snapkv; cap=96", 512));
    other = s;
    other.seed = 1;
    EXPECT_NE(plain, print(other, "method=snapkv; cap=96", 512));
}

// The full cache against itself is exact; a smaller one is not; packing while decoding is another
// measurement of the same thing.
TEST_F(Eval, FidelityIsZeroForTheFullCache) {
    Settings s;
    s.file = folder_->file("hay");
    s.s_len = 300;
    s.force_tokens = 40;
    s.max_num_examples = 2;
    const Suite& suite = find_suite("fidelity");
    const auto list = make_configs(expand_sweep("method=full,snapkv; cap=64; quant=kivi:16,2", {}),
                                   suite, s, model_);
    for (const bool pack : {false, true}) {
        s.pack_decode = pack;
        const PromptSet prompts = suite.open(s, model_);
        ASSERT_EQ(prompts.ids.size(), 2U);
        RunnerOptions options;
        options.pack_decode = pack;
        const Prompt prompt = prompts.make(1);
        EXPECT_EQ(prompt.tokens.size(), 300U);
        EXPECT_EQ(prompt.forced.size(), 41U);
        const std::vector<Outcome> outcomes = run_prompt(model_, list, prompt, options);
        for (std::size_t i = 0; i < list.size(); ++i) {
            const Fidelity& f = outcomes[i].fidelity.value();
            EXPECT_EQ(f.tokens, 40);
            EXPECT_GE(f.kl_p99, f.kl_mean);
            if (list[i].id == "full-16") {
                EXPECT_EQ(f.kl_mean, 0.0);
                EXPECT_EQ(f.top1, 1.0);
                EXPECT_EQ(f.ppl, f.ppl_full);
            } else {
                EXPECT_GT(f.kl_mean, 1e-9) << list[i].id;
            }
        }
    }
    s.force_tokens = 100000;
    EXPECT_NE(message_of([&] { suite.open(s, model_); }).find("positions"), std::string::npos);
    s.force_tokens = 40;
    s.s_len = 2000;
    s.file = folder_->file("hay/a.txt");
    EXPECT_NE(message_of([&] { suite.open(s, model_); }).find("use a longer text"),
              std::string::npos);
    s.file = "/nowhere.txt";
    EXPECT_NE(message_of([&] { suite.open(s, model_); }).find("/nowhere.txt"), std::string::npos);
}

}  // namespace
}  // namespace winnow::eval
