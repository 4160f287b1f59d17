// Datasets by real tokenizers: RULER's samples are as long as asked and deterministic, LongBench's
// prompts are cut in the middle.
#include <gtest/gtest.h>

#include "eval/datasets/longbench.h"
#include "eval/datasets/ruler.h"
#include "eval/suite.h"
#include "support/dataset_files.h"
#include "support/test_files.h"

namespace winnow::eval {
namespace {

void check(const std::string& start) {
    const std::string path = testing::find_model(start);
    const std::string essays = testing::find_data("haystack");
    if (path.empty()) {
        GTEST_SKIP() << testing::missing_model(start);
    }
    const auto model = Model::load(path, {.threads = 1});
    const Tokenizer tokenizer = tokenizer_of(model);
    RulerOptions options;
    options.samples = 5;
    options.haystack_dir = essays;
    if (essays.empty()) {
        options.haystack_dir = testing::fresh_folder("ruler_examples");
        testing::write_file(options.haystack_dir + "/text.txt", testing::example_text(100000));
    }
    for (const int length : {1024, 4096}) {
        options.length = length;
        const Dataset found = generate_ruler(options, tokenizer);
        ASSERT_EQ(found.samples.size(), 55U);
        double least = 1.0;
        for (const Sample& sample : found.samples) {
            const int tokens =
                tokenizer.count(sample.input + " " + sample.answer_prefix) + sample.max_new_tokens;
            EXPECT_EQ(tokens, sample.length);
            EXPECT_LE(tokens, length) << sample.task;
            // A line of niah_multikey_3 is two UUIDs.
            const int slack = sample.task == "niah_multikey_3" ? 100 : length * 3 / 100;
            EXPECT_GE(tokens, length - slack) << sample.task;
            least = std::min(least, static_cast<double>(tokens) / length);
        }
        std::printf("%s at %d: samples take at least %.1f %% of it\n", start.c_str(), length,
                    100 * least);
        const Dataset again = generate_ruler(options, tokenizer);
        for (std::size_t i = 0; i < found.samples.size(); ++i) {
            EXPECT_EQ(found.samples[i].input, again.samples[i].input);
        }
    }
}

TEST(RulerTokenizer, SmolLm) {
    check("smollm2");
}

TEST(RulerTokenizer, Qwen) {
    check("qwen2.5");
}

TEST(LongBenchTokenizer, KeepsBothEndsOfAPrompt) {
    const std::string path = testing::find_model("smollm2");
    const std::string folder = testing::find_data("longbench");
    if (path.empty() || folder.empty()) {
        GTEST_SKIP() << testing::missing_model("smollm2") << "; "
                     << testing::missing_data("longbench");
    }
    const Tokenizer tokenizer = tokenizer_of(Model::load(path, {.threads = 1}));
    LongBenchOptions options{.data_dir = folder, .prompt_dir = "", .tasks = {"multi_news"}};
    options.max_samples = 20;
    const Dataset whole = load_longbench(options, tokenizer);
    options.context_tokens = 1512;  // 512 of them for the reply
    const Dataset cut = load_longbench(options, tokenizer);
    int shortened = 0;
    for (std::size_t i = 0; i < whole.samples.size(); ++i) {
        const std::string& text = whole.samples[i].input;
        const std::string& kept = cut.samples[i].input;
        const std::vector<std::int32_t> tokens = tokenizer.tokenize(text);
        EXPECT_EQ(tokenizer.detokenize(tokens), text);
        if (tokens.size() <= 1000) {
            EXPECT_EQ(kept, text);
            continue;
        }
        ++shortened;
        EXPECT_LE(tokenizer.count(kept), 1000);
        EXPECT_GE(tokenizer.count(kept), 990);
        EXPECT_TRUE(kept.starts_with("You are given several news passages."));
        EXPECT_TRUE(kept.ends_with("Summary:"));
        EXPECT_EQ(kept.substr(0, 1000), text.substr(0, 1000));
        EXPECT_EQ(kept.substr(kept.size() - 1000), text.substr(text.size() - 1000));
    }
    EXPECT_GT(shortened, 5);
}

}  // namespace
}  // namespace winnow::eval
