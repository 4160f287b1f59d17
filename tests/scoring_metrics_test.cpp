// Metrics on fixed cases. Every value was computed by the official Python implementation;
// tests/slow/metrics_official_test.cpp compares hundreds of generated pairs.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include "scoring/metrics.h"
#include "scoring/suites.h"

namespace winnow::scoring {
namespace {

using Strings = std::vector<std::string>;

TEST(Metrics, QaF1) {
    EXPECT_DOUBLE_EQ(qa_f1("The Cat sat.", "a cat, sat"), 1.0);
    EXPECT_DOUBLE_EQ(qa_f1("cat cat dog", "cat dog dog"), 2.0 / 3.0);
    EXPECT_DOUBLE_EQ(qa_f1("the", "the"), 0.0);  // nothing is left of either
    EXPECT_DOUBLE_EQ(qa_f1("", "x"), 0.0);
    EXPECT_DOUBLE_EQ(qa_f1("\u00C9COLE the\u2014an", "\u00E9cole \u2014"), 1.0);
    EXPECT_DOUBLE_EQ(qa_f1("U.S.A", "usa"), 1.0);
    EXPECT_DOUBLE_EQ(qa_f1("theatre", "atre"), 0.0);
}

TEST(Metrics, RougeL) {
    EXPECT_NEAR(rouge_l("the cat sat. a dog ran.", "the cat ran. a dog sat."), 0.999999995, 1e-12);
    EXPECT_NEAR(rouge_l("the cat sat on the mat", "the cat lay on a mat"), 0.7272727223140496,
                1e-12);
    EXPECT_DOUBLE_EQ(rouge_l("", "x"), 0.0);
    EXPECT_DOUBLE_EQ(rouge_l("...", "x"), 0.0);
    EXPECT_NEAR(rouge_l(" . x", " . y"), 0.499999995, 1e-12);  // a blank is a word
}

TEST(Metrics, Classification) {
    const Strings names = {"Human", "Human group", "group", "city"};
    EXPECT_DOUBLE_EQ(classification("a Human group", "Human group", names), 1.0);
    EXPECT_DOUBLE_EQ(classification("city, Human", "Human", names), 0.5);
    EXPECT_DOUBLE_EQ(classification("city", "Human", names), 0.0);
    // Removing "a" skips "ab", which would go as well.
    EXPECT_DOUBLE_EQ(classification("abc", "abc", Strings{"a", "ab", "abc"}), 0.5);
    EXPECT_DOUBLE_EQ(classification("abc", "abc", Strings{}), 0.0);
}

TEST(Metrics, CountAndRetrieval) {
    EXPECT_DOUBLE_EQ(count_share("There are 12 of 30.", "12"), 0.5);
    EXPECT_DOUBLE_EQ(count_share("twelve", "12"), 0.0);
    EXPECT_DOUBLE_EQ(count_share("12 \u0661\u0662", "12"), 0.5);
    EXPECT_DOUBLE_EQ(retrieval("Paragraph 3, or 4, or 3", "Paragraph 3"), 2.0 / 3.0);
    EXPECT_DOUBLE_EQ(retrieval("3", "Paragraph x Paragraph 3"), 1.0);
    EXPECT_DOUBLE_EQ(retrieval("\u6BB5\u843D"
                               "7",
                               "\u6BB5\u843D"
                               "7",
                               "\u6BB5\u843D"),
                     1.0);
    EXPECT_THROW(retrieval("3", "the third"), Error);
}

TEST(Metrics, CodeSimilarity) {
    EXPECT_EQ(fuzz_ratio("this is a test", "this is a test!"), 97);
    EXPECT_EQ(fuzz_ratio("", ""), 100);
    EXPECT_EQ(fuzz_ratio("", "x"), 0);
    EXPECT_EQ(fuzz_ratio(std::string(4, 'a'), std::string(1, 'a') + "bcd"), 25);
    EXPECT_EQ(fuzz_ratio(std::string(5, 'a') + "bcd", std::string(5, 'a') + "xyz"), 62);  // 62.5
    EXPECT_EQ(fuzz_ratio("\u00E9a", "ea"), 50);  // characters, not bytes
    EXPECT_DOUBLE_EQ(code_similarity("\n```python\n# a\n  x = 1\ny", "  x = 1"), 1.0);
    EXPECT_DOUBLE_EQ(code_similarity("# only", "x"), 0.0);
    EXPECT_DOUBLE_EQ(code_similarity("// only", ""), 1.0);
}

TEST(Metrics, Containment) {
    EXPECT_DOUBLE_EQ(string_match_all("It is 12 and ABC", Strings{"12", "abc", "x", "y"}), 0.5);
    EXPECT_DOUBLE_EQ(string_match_any("It is 12", Strings{"x", "12"}), 1.0);
    EXPECT_DOUBLE_EQ(string_match_any("It is 12", Strings{"x"}), 0.0);
    EXPECT_DOUBLE_EQ(string_match_all("a\tb", Strings{"a\tb"}), 0.0);  // control characters go
    EXPECT_DOUBLE_EQ(string_match_all("", Strings{}), 0.0);
    const char* expected = "eat a sandwich and sit in Dolores Park on a sunny day.";
    EXPECT_DOUBLE_EQ(word_overlap(expected, expected), 1.0);
    EXPECT_DOUBLE_EQ(word_overlap("Sit IN the park on a day", expected), 5.0 / 11.0);
    EXPECT_DOUBLE_EQ(word_overlap("", expected), 0.0);
}

TEST(Suites, LongBenchTable) {
    ASSERT_EQ(longbench_tasks().size(), 21U);
    const LongBenchTask& samsum = longbench_task("samsum");
    EXPECT_TRUE(samsum.stop_at_newline && samsum.first_line && !samsum.chat_template);
    EXPECT_EQ(samsum.max_new_tokens, 128);
    for (const char* name : {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}) {
        EXPECT_FALSE(longbench_task(name).chat_template) << name;
    }
    EXPECT_TRUE(longbench_task("multi_news").chat_template);
}

TEST(Suites, LongBenchScoresTheBestAnswerOfTheFirstLine) {
    const Strings answers = {"the wrong one", "right"};
    EXPECT_DOUBLE_EQ(longbench_score(longbench_task("triviaqa"), "\n\nright\nwrong", answers, {}),
                     100.0);
    EXPECT_DOUBLE_EQ(longbench_score(longbench_task("hotpotqa"), "right\nx", answers, {}),
                     100.0 * 2.0 / 3.0);
    EXPECT_DOUBLE_EQ(longbench_score(longbench_task("hotpotqa"), "x", Strings{}, {}), 0.0);
    EXPECT_DOUBLE_EQ(longbench_score(longbench_task("trec"), "\n", answers, answers), 0.0);
}

TEST(Suites, RefusesByName) {
    const auto message = [](std::string_view name) -> std::string {
        try {
            longbench_task(name);
        } catch (const Error& error) {
            return error.kind() == ErrorKind::usage ? error.what() : "not a usage error";
        }
        return {};
    };
    EXPECT_NE(message("dureader").find("Chinese words"), std::string::npos);
    EXPECT_NE(message("vcsum").find("'vcsum'"), std::string::npos);
    EXPECT_NE(message("trek").find("'trek' is no LongBench task; there are narrativeqa, "),
              std::string::npos);
    EXPECT_EQ(message("passage_retrieval_zh"), "");
}

TEST(Suites, RulerAndNeedle) {
    const Strings outputs = {"12", "13"};
    EXPECT_DOUBLE_EQ(ruler_score("niah_multivalue", "12", outputs), 50.0);
    EXPECT_DOUBLE_EQ(ruler_score("qa_1", "12", outputs), 100.0);
    EXPECT_DOUBLE_EQ(needle_number_score("It is 1234567.", "1234567"), 100.0);
    EXPECT_DOUBLE_EQ(needle_number_score("It is 123456.", "1234567"), 0.0);
    EXPECT_NEAR(needle_sf_score("eat", "eat a"), 50.0, 1e-12);
}

}  // namespace
}  // namespace winnow::scoring
