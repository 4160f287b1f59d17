// RULER's samples by real tokenizers: as long as asked, and deterministic.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include "eval/datasets/ruler.h"
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
    const Tokenizer tokenizer{
        .tokenize = [&](std::string_view text) { return model->tokenize(text, false, false); },
        .detokenize = {}};
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

}  // namespace
}  // namespace winnow::eval
