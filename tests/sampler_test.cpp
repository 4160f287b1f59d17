// The sampler: its settings, grammars and schemas.
#include "text/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "text_vocab.h"

namespace winnow {
namespace {

struct Text {
    std::string text;
    bool ended = false;
};

/// Samples with the same pseudo-random logits at each step, as a model that knows nothing would.
Text generate(const Vocab& vocab, const SamplingOptions& options, int steps) {
    TokenSampler sampler(vocab, options, vocab.size());
    Text out;
    uint32_t state = 12345;
    std::vector<float> logits(static_cast<size_t>(vocab.size()));
    for (int i = 0; i < steps && !out.ended; ++i) {
        for (float& logit : logits) {
            state = state * 1664525U + 1013904223U;
            logit = static_cast<float>(state >> 8) / float(1 << 22);
        }
        const int32_t token = sampler.sample(logits);
        sampler.accept(token);
        out.text += vocab.piece(token, false);
        out.ended = vocab.is_eog(token);
    }
    return out;
}

TEST(Sampler, GreedyTakesTheLowerIdOfEqualLogits) {
    NEED_VOCAB(vocab, kSmol);
    TokenSampler sampler(*vocab, {}, vocab->size());
    std::vector<float> logits(49152, -1.0F);
    logits[700] = logits[300] = logits[40000] = 5.0F;
    EXPECT_EQ(sampler.sample(logits), 300);
    logits[40000] = 5.5F;
    EXPECT_EQ(sampler.sample(logits), 40000);
    logits[7] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(sampler.sample(logits), 40000);
    std::fill(logits.begin(), logits.end(), std::numeric_limits<float>::quiet_NaN());
    EXPECT_TRUE(has(error_of([&] { sampler.sample(logits); }), "49152 logits are NaN"));
    logits.pop_back();
    EXPECT_TRUE(has(error_of([&] { sampler.sample(logits); }), "got 49151 logits"));
    EXPECT_TRUE(has(error_of([&] { sampler.accept(49152); }), "Token 49152"));
}

TEST(Sampler, PaddedLogitsAreNeverDrawn) {
    NEED_VOCAB(vocab, kSmol);
    TokenSampler sampler(*vocab, {}, vocab->size() + 64);
    std::vector<float> logits(static_cast<size_t>(vocab->size()) + 64, 0.0F);
    logits.back() = 10.0F;
    logits[11] = 1.0F;
    EXPECT_EQ(sampler.sample(logits), 11);
}

TEST(Sampler, SeedsReproduce) {
    NEED_VOCAB(vocab, kSmol);
    SamplingOptions options;
    options.temp = 1.0F;
    options.seed = 7;
    const std::string first = generate(*vocab, options, 12).text;
    EXPECT_EQ(generate(*vocab, options, 12).text, first);
    options.seed = 8;
    EXPECT_NE(generate(*vocab, options, 12).text, first);

    options.seed = SamplingOptions::kRandomSeed;
    TokenSampler sampler(*vocab, options, vocab->size());
    EXPECT_NE(sampler.seed(), SamplingOptions::kRandomSeed);
    const std::vector<float> logits(49152, 0.0F);
    std::vector<int32_t> drawn;
    for (int i = 0; i < 5; ++i) drawn.push_back(sampler.sample(logits));
    sampler.reset();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(sampler.sample(logits), drawn[static_cast<size_t>(i)]);
}

TEST(Sampler, TopKTopPMinP) {
    NEED_VOCAB(vocab, kSmol);
    std::vector<float> logits(49152, -20.0F);
    for (size_t i = 0; i < 10; ++i) logits[100 + i] = 1.0F - 0.01F * static_cast<float>(i);
    const auto drawn_range = [&](auto change) {
        SamplingOptions options;
        options.temp = 1.0F;
        options.seed = 3;
        change(options);
        TokenSampler sampler(*vocab, options, 49152);
        int32_t highest = 0;
        for (int i = 0; i < 60; ++i) highest = std::max(highest, sampler.sample(logits));
        return highest;
    };
    EXPECT_EQ(drawn_range([](SamplingOptions& o) { o.top_k = 1; }), 100);
    EXPECT_EQ(drawn_range([](SamplingOptions& o) { o.top_p = 0.0F; }), 100);
    EXPECT_EQ(drawn_range([](SamplingOptions& o) { o.min_p = 0.999F; }), 100);
    EXPECT_GT(drawn_range([](SamplingOptions&) {}), 104);
}

TEST(Sampler, PenaltiesChangeTheOutcome) {
    NEED_VOCAB(vocab, kSmol);
    std::vector<float> logits(49152, 0.0F);
    logits[50] = 2.0F;
    logits[60] = 1.9F;
    for (float SamplingOptions::*field :
         {&SamplingOptions::repeat_penalty, &SamplingOptions::presence_penalty,
          &SamplingOptions::frequency_penalty}) {
        SamplingOptions options;
        options.*field = 1.5F;
        options.repeat_last_n = 2;
        TokenSampler sampler(*vocab, options, 49152);
        EXPECT_EQ(sampler.sample(logits), 50);
        sampler.accept(50, /*generated=*/false);
        EXPECT_EQ(sampler.sample(logits), 60);
        sampler.accept(7);
        sampler.accept(8);  // 50 has left the window
        EXPECT_EQ(sampler.sample(logits), 50);
        sampler.accept(50);
        sampler.reset();
        EXPECT_EQ(sampler.sample(logits), 50);
    }
}

TEST(Sampler, IgnoreEosNeverEnds) {
    NEED_VOCAB(vocab, kSmol);
    std::vector<float> logits(49152, 0.0F);
    logits[2] = 9.0F;  // <|im_end|>
    logits[5000] = 1.0F;
    SamplingOptions options;
    EXPECT_EQ(TokenSampler(*vocab, options, 49152).sample(logits), 2);
    options.ignore_eos = true;
    EXPECT_EQ(TokenSampler(*vocab, options, 49152).sample(logits), 5000);
}

TEST(Sampler, GrammarForcesDigits) {
    for (const char* file : {kSmol, kQwen}) {
        NEED_VOCAB(vocab, file);
        for (const bool ignore_eos : {false, true}) {
            SamplingOptions options;
            options.grammar = "root ::= [0-9]{4} \"-\" [0-9]{2}\n";
            options.ignore_eos = ignore_eos;
            const Text out = generate(*vocab, options, 20);
            ASSERT_EQ(out.text.size(), 7U) << out.text;
            for (size_t i = 0; i < 7; ++i) {
                EXPECT_EQ(out.text[i] == '-', i == 4) << out.text;
                EXPECT_TRUE(i == 4 || (out.text[i] >= '0' && out.text[i] <= '9')) << out.text;
            }
            EXPECT_TRUE(out.ended);  // also with ignore_eos: nothing else fits
        }
    }
}

TEST(Sampler, GrammarRefusesAndResets) {
    NEED_VOCAB(vocab, kSmol);
    SamplingOptions options;
    options.grammar = "root ::= \"yes\" | \"no\"";
    TokenSampler sampler(*vocab, options, 49152);
    const int32_t no = vocab->tokenize("no", false, false).at(0);
    const int32_t dog = vocab->tokenize("dog", false, false).at(0);
    EXPECT_TRUE(has(error_of([&] { sampler.accept(dog); }), "does not fit the grammar"));
    EXPECT_TRUE(has(error_of([&] { sampler.accept(2); }), "does not fit the grammar"));  // an end
    sampler.accept(dog, /*generated=*/false);  // the prompt is not the grammar's business
    sampler.accept(no);
    std::vector<float> logits(49152, 0.0F);
    EXPECT_TRUE(vocab->is_eog(sampler.sample(logits)));
    sampler.accept(2);
    sampler.reset();
    EXPECT_FALSE(vocab->is_eog(sampler.sample(logits)));
}

TEST(Sampler, JsonSchemaForcesAnObject) {
    NEED_VOCAB(vocab, kSmol);
    SamplingOptions options;
    options.json_schema = R"({"type": "object", "properties": {"a": {"type": "integer",
        "minimum": 1, "maximum": 9}, "b": {"enum": ["x", "y"]}, "c": {"type": "boolean"}},
        "required": ["a", "b", "c"], "additionalProperties": false})";
    const Text out = generate(*vocab, options, 200);
    EXPECT_TRUE(out.ended);
    std::string tight;
    for (const char c : out.text) {
        if (c != ' ' && c != '\n' && c != '\t') tight += c;
    }
    ASSERT_GE(tight.size(), 22U) << out.text;
    EXPECT_EQ(tight.substr(0, 5), "{\"a\":") << out.text;
    EXPECT_TRUE(tight[5] >= '1' && tight[5] <= '9') << out.text;
    EXPECT_EQ(tight.substr(6, 6), ",\"b\":\"") << out.text;
    EXPECT_TRUE(has(tight, ",\"c\":true}") || has(tight, ",\"c\":false}")) << out.text;
}

TEST(Sampler, BadGrammarsAreUsageErrors) {
    NEED_VOCAB(vocab, kSmol);
    const std::string deep = "root ::= " + repeat("(", 100'000) + "\"a\"" + repeat(")", 100'000);
    std::string wide = "r40 ::= \"a\"\nroot ::= r0\n";
    for (int i = 0; i < 40; ++i) {
        const std::string next = "r" + std::to_string(i + 1);
        wide += "r" + std::to_string(i) + " ::= " + next + " | " + next + "\n";
    }
    const std::pair<std::string, std::string> cases[] = {
        {" ", "rule 'root' is not defined"},
        {"start ::= \"a\"", "rule 'root' is not defined"},
        {"root ::= missing", "line 1: rule 'missing' is used but not defined"},
        {"root ::= \"a\"\n\nx ::= y", "line 3: rule 'y' is used"},
        {"root ::= root \"a\"", "left-recursive"},
        {"root ::= b\nb ::= root \"a\" | \"b\"", "left-recursive"},
        {"root ::= n root \"a\"\nn ::= e e\ne ::= \"\" | \"x\"", "left-recursive"},
        {"root ::= (\"a\"?)? root \"a\"", "left-recursive"},
        {"root ::= \"a", "'\"' is missing"},
        {"root ::= [a-", "']' is missing"},
        {"root ::= \"\\q\"", "is not an escape"},
        {"root ::= \"\\x1\"", "2 hexadecimal digits"},
        {"root ::= (\"a\"", "')' is expected"},
        {"root ::= *", "nothing to repeat"},
        {"root ::= \"\"*", "nothing to repeat"},
        {"root ::= \"a\"{3,1}", "upper bound"},
        {"root ::= \"a\"{99999}", "over 2000"},
        {"root ::= (\"a\" \"b\"){99999999999999999999}", "over 2000"},
        {"root ::= (\"a\" | ((\"b\"))){1500}", "over 2000"},
        {"root ::= <no such token>", "is not one token"},
        {"root = \"a\"", "::= is expected"},
        {"::= \"a\"", "a rule's name is expected"},
        {"root ::= \"a\" ]", "']' is not expected"},
        {std::string("root ::= \"a\0\"", 13), "zero byte"},
        {deep, "over 100 parentheses"},
        {wide, "too many ways"},
    };
    for (const auto& [grammar, part] : cases) {
        SamplingOptions options;
        options.grammar = grammar;
        ::testing::internal::CaptureStderr();
        const std::string error = error_of([&] { TokenSampler(*vocab, options, 49152); });
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
        EXPECT_TRUE(error.starts_with("usage: --grammar ")) << grammar.substr(0, 60) << error;
        EXPECT_TRUE(has(error, part)) << grammar.substr(0, 60) << error;
    }
}

TEST(Sampler, GoodGrammarsAreTaken) {
    NEED_VOCAB(vocab, kSmol);
    for (const char* grammar :
         {"root ::= <|im_start|>+\n", "root ::= (<[1]> | !<[1]>)*", "root ::= .*",
          "# comment\nroot ::= (\"a\" | # more\n [^b-d\\]\\-] \n)+ x?\nx ::= \"\\u00e9\" \"\\n\"",
          "root ::= item{0,5} (\",\" item)* item{2,} item{3}\nitem ::= [a-z]+ | \"-\"\r\n",
          "root ::= \"a\"{0}", "root ::= \"\""}) {
        SamplingOptions options;
        options.grammar = grammar;
        ::testing::internal::CaptureStderr();
        EXPECT_EQ(error_of([&] { generate(*vocab, options, 3); }), "") << grammar;
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << grammar;
    }
}

TEST(Sampler, BadSchemasAndOptionsAreUsageErrors) {
    NEED_VOCAB(vocab, kSmol);
    for (const std::string& schema :
         {std::string("{"), std::string("[]"), std::string("{\"type\": \"frob\"}"),
          std::string("{\"$ref\": \"#/nowhere\"}"), repeat("[", 100'000),
          std::string("{\"type\": \"string\", \"pattern\": \"^(a)(?=b)$\"}"),
          std::string("{\"type\": \"array\", \"items\": {}, \"minItems\": 100000}")}) {
        SamplingOptions options;
        options.json_schema = schema;
        ::testing::internal::CaptureStderr();
        const std::string error = error_of([&] { TokenSampler(*vocab, options, 49152); });
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << schema.substr(0, 60);
        EXPECT_TRUE(error.starts_with("usage: --json-schema ")) << schema.substr(0, 60) << error;
    }
    const auto refused = [&](auto change) {
        SamplingOptions options;
        change(options);
        return error_of([&] { TokenSampler(*vocab, options, 49152); });
    };
    EXPECT_TRUE(has(refused([](auto& o) { o.temp = -1; }), "usage: --temp is -1"));
    EXPECT_TRUE(has(refused([](auto& o) { o.temp = NAN; }), "--temp"));
    EXPECT_TRUE(has(refused([](auto& o) { o.top_p = 1.5F; }), "--top-p"));
    EXPECT_TRUE(has(refused([](auto& o) { o.min_p = -0.1F; }), "--min-p"));
    EXPECT_TRUE(has(refused([](auto& o) { o.repeat_penalty = 0; }), "--repeat-penalty"));
    EXPECT_TRUE(has(refused([](auto& o) { o.repeat_last_n = -2; }), "--repeat-last-n"));
    EXPECT_TRUE(has(refused([](auto& o) { o.grammar = o.json_schema = "x"; }), "exclude"));
}

}  // namespace
}  // namespace winnow
