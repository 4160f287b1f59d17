// Prompts of the needle test: exact in tokens, in depth and in words.
#include <gtest/gtest.h>

#include <set>

#include "eval/haystack.h"
#include "eval/lengths.h"
#include "eval/needle_prompt.h"
#include "eval/samples.h"
#include "support/eval_fixture.h"

namespace winnow::eval {
namespace {

namespace fs = std::filesystem;

TEST_F(Eval, TextsAreJoinedInNameOrderAndMissingOnesNamed) {
    const std::string text = read_texts(folder_->file("hay"), "\n", "--haystack");
    EXPECT_EQ(text.find("The first file! It has two sentences.\nNumber 0"), 0U);
    EXPECT_NE(message_of([] {
                  read_texts("/nowhere", "\n", "--haystack");
              }).find("--haystack names /nowhere"),
              std::string::npos);
    fs::create_directories(folder_->file("empty"));
    EXPECT_NE(message_of([] {
                  read_texts(folder_->file("empty"), "\n", "--haystack");
              }).find("holds no text"),
              std::string::npos);
    EXPECT_EQ(sentence_end("One. Two! No 3.5 here", 21), 9U);
    EXPECT_EQ(sentence_end("One. Two", 3), 0U);
}

// Length: the prompt's tokens, exactly. Depth: the needle stands behind a sentence, and no
// sentence ends between it and the token that the depth names.
TEST_F(Eval, HonestPromptsAreExactInTokens) {
    const std::string text = read_texts(folder_->file("hay"), "\n", "--haystack");
    Haystack haystack(model_, text);
    for (const bool number : {false, true}) {
        const Needle needle = number ? number_needle(7) : sf_needle("honest", false);
        for (const int length : {500, 501, 502, 503, 640, 1999}) {
            for (const int depth : {0, 10, 33, 50, 90, 100}) {
                const NeedlePrompt p = honest_prompt(*model_, haystack, needle, length, depth, 3);
                EXPECT_EQ(static_cast<int>(p.tokens.size()), length);
                const std::size_t at = p.text.find(needle.sentence);
                ASSERT_NE(at, std::string::npos);
                EXPECT_EQ(p.text.find(needle.sentence, at + 1), std::string::npos);
                EXPECT_LE(p.needle_at, p.haystack_tokens * depth / 100);
                EXPECT_NE(p.text.find(needle.question), std::string::npos);
                const std::size_t begin = p.text.find("\n\n") + 2;
                std::string before = p.text.substr(begin, at - begin);
                const int counted = static_cast<int>(model_->tokenize(before, false, false).size());
                EXPECT_NEAR(counted, p.needle_at, 2) << length << " " << depth;
                // The next sentence of the haystack ends past the depth.
                std::size_t after = at + needle.sentence.size();
                const std::size_t next = p.text.find(". ", after);
                if (next != std::string::npos && depth < 90) {
                    before += p.text.substr(after, next + 1 - after);
                    EXPECT_GT(static_cast<int>(model_->tokenize(before, false, false).size()) + 1,
                              p.haystack_tokens * depth / 100);
                }
            }
        }
    }
    EXPECT_NE(message_of([&] {
                  honest_prompt(*model_, haystack, sf_needle("honest", false), 50, 0, 0);
              }).find("too short"),
              std::string::npos);
}

TEST_F(Eval, PaperPromptsLeaveTwoHundredTokens) {
    Haystack haystack(model_, read_texts(folder_->file("hay"), "", "--haystack"));
    const Needle needle = sf_needle("paper", false);
    for (const int depth : {0, 50, 100}) {
        const NeedlePrompt p = paper_prompt(*model_, haystack, needle, 900, depth, 0);
        const std::string inserted = "\n" + needle.sentence + "\n";
        EXPECT_EQ(
            p.haystack_tokens + static_cast<int>(model_->tokenize(inserted, false, false).size()),
            700);
        EXPECT_LE(p.needle_at, p.haystack_tokens * depth / 100);
        EXPECT_NE(p.text.find(inserted), std::string::npos);
        EXPECT_EQ(p.text.find("<|im_start|> This is a very long story book: <book> "), 0U);
        const std::string end =
            " </book>.\n Based on the content of the book, Question: The best "
            "thing to do in San Francisco is: \nAnswer:";
        EXPECT_EQ(p.text.substr(p.text.size() - end.size()), end);
    }
}

TEST_F(Eval, NumbersAreDrawnByTheSeed) {
    EXPECT_EQ(number_needle(1).sentence, number_needle(1).sentence);
    std::set<std::string> numbers;
    for (int seed = 0; seed < 50; ++seed) {
        const Needle needle = number_needle(static_cast<std::uint64_t>(seed));
        numbers.insert(needle.expected);
        EXPECT_EQ(needle.expected.size(), 7U);
        EXPECT_NE(needle.sentence.find(needle.expected), std::string::npos);
    }
    EXPECT_GE(numbers.size(), 49U);
}

TEST_F(Eval, LengthsMustFitTheContext) {
    Settings s;
    s.s_len = 500;
    s.e_len = 1500;
    s.step = 500;
    EXPECT_EQ(lengths_of(s, *model_, {}, 10), (std::vector<int>{500, 1000, 1500}));
    s.e_len = 2048;
    s.s_len = 2048;
    EXPECT_NE(message_of([&] { lengths_of(s, *model_, {}, 10); }).find("--e-len"),
              std::string::npos);
    s.e_len = 100;
    EXPECT_NE(message_of([&] { lengths_of(s, *model_, {}, 10); }).find("--s-len is 2048"),
              std::string::npos);
}

TEST_F(Eval, BlanksAreNoHaystack) {
    EXPECT_NE(message_of([] { Haystack(model_, " \n"); }).find("no text but blanks"),
              std::string::npos);
}

TEST_F(Eval, SamplesMustBeThereAndFit) {
    const auto open = [](std::vector<Sample> samples) {
        return prompts_of({std::move(samples)}, {}, model_, {});
    };
    EXPECT_NE(message_of([&] { open({}); }).find("there is no sample to run"), std::string::npos);
    Sample sample;
    sample.task = "vt";
    sample.input = std::string(4000, 'x');
    sample.max_new_tokens = 30;
    const PromptSet set = open({sample});
    const std::string message = message_of([&] { set.make(0); });
    EXPECT_NE(message.find("prompt vt-0 and its answer need "), std::string::npos) << message;
    EXPECT_NE(message.find("but the context has 2048"), std::string::npos) << message;
}

}  // namespace
}  // namespace winnow::eval
