// Middle truncation, with a tokenizer of whole characters and one whose tokens merge.
#include <gtest/gtest.h>

#include "eval/dataset.h"

namespace winnow::eval {
namespace {

Tokenizer characters() {
    return {.tokenize =
                [](std::string_view text) {
                    return std::vector<std::int32_t>(text.begin(), text.end());
                },
            .detokenize =
                [](std::span<const std::int32_t> tokens) {
                    return std::string(tokens.begin(), tokens.end());
                }};
}

TEST(TruncateMiddle, KeepsBothHalves) {
    const Tokenizer tokenizer = characters();
    EXPECT_EQ(truncate_middle("abcdefghij", 10, tokenizer), "abcdefghij");
    EXPECT_EQ(truncate_middle("abcdefghij", 4, tokenizer), "abij");
    EXPECT_EQ(truncate_middle("abcdefghij", 5, tokenizer), "abij");
    EXPECT_EQ(truncate_middle("abcdefghij", 1, tokenizer), "");
    EXPECT_EQ(truncate_middle("", 4, tokenizer), "");
}

TEST(TruncateMiddle, NeverCountsMoreThanTheLimit) {
    // The pair "xx" is one token, so that joined halves split otherwise.
    Tokenizer tokenizer = characters();
    tokenizer.tokenize = [](std::string_view text) {
        std::vector<std::int32_t> tokens;
        for (std::size_t i = 0; i < text.size(); ++i) {
            const bool pair = text.substr(i, 2) == "xy";
            tokens.push_back(pair ? 1 : text[i]);
            i += pair ? 1 : 0;
        }
        return tokens;
    };
    tokenizer.detokenize = [](std::span<const std::int32_t> tokens) {
        std::string text;
        for (const std::int32_t token : tokens) {
            text += token == 1 ? std::string("xy") : std::string(1, static_cast<char>(token));
        }
        return text;
    };
    EXPECT_EQ(truncate_middle("aaxybbxycc", 4, tokenizer), "aacc");
    for (int limit = 0; limit < 12; ++limit) {
        const std::string cut = truncate_middle("axybxycxydxy", limit, tokenizer);
        EXPECT_LE(tokenizer.count(cut), limit);
        EXPECT_GE(tokenizer.count(cut), std::min(limit - 2, 8)) << limit;
    }
}

TEST(TruncateMiddle, CutsNoCharacterInTwo) {
    // A token per byte: the halves end inside characters.
    Tokenizer tokenizer = characters();
    const std::string text = "\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9";
    EXPECT_EQ(truncate_middle(text, 8, tokenizer), "\u00E9\u00E9\u00E9\u00E9");
    EXPECT_EQ(truncate_middle(text, 10, tokenizer), "\u00E9\u00E9\u00E9\u00E9");  // not 5 + 5
    EXPECT_EQ(truncate_middle(text, 14, tokenizer), "\u00E9\u00E9\u00E9\u00E9\u00E9\u00E9");
}

TEST(TruncateMiddle, DropsTheSpaceThatATokenizerAdds) {
    Tokenizer tokenizer = characters();
    tokenizer.tokenize = [](std::string_view text) {
        std::vector<std::int32_t> tokens(text.begin(), text.end());
        tokens.insert(tokens.begin(), ' ');
        return tokens;
    };
    EXPECT_EQ(truncate_middle("abcdefghij", 6, tokenizer), "abhij");
}

}  // namespace
}  // namespace winnow::eval
