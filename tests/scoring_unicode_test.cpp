// Text as Python's str sees it; the expected values were taken from CPython 3.11.
#include <gtest/gtest.h>

#include "scoring/unicode.h"

namespace winnow::scoring {
namespace {

using Words = std::vector<std::string>;

TEST(Unicode, LowersLikePython) {
    EXPECT_EQ(lower("The QUICK Fox"), "the quick fox");
    EXPECT_EQ(lower("\u00C9\u00D1\u0130"), "\u00E9\u00F1i\u0307");  // dotted I: two characters
    // A capital sigma is final after a letter and before none.
    EXPECT_EQ(lower("\u039F\u03A3 \u03A3\u039F \u03A3"), "\u03BF\u03C2 \u03C3\u03BF \u03C3");
    EXPECT_EQ(lower("\u1E9E\U00010400"), "\u00DF\U00010428");
    EXPECT_EQ(lower(""), "");
}

TEST(Unicode, SplitsAtEverySpaceOfPython) {
    EXPECT_EQ(split_words(" a\u00A0b\x1C"
                          "c\u3000d\u200Be\n"),
              (Words{"a", "b", "c", "d\u200Be"}));  // U+200B is no space
    EXPECT_EQ(split_words(" \t"), Words{});
    EXPECT_EQ(split_at("a..b.", '.'), (Words{"a", "", "b", ""}));
    EXPECT_EQ(split_at("", '.'), (Words{""}));
}

TEST(Unicode, FindsDecimalsOfEveryScript) {
    EXPECT_EQ(find_numbers("a12b\u0663\u0664 x\u00B2 7"), (Words{"12", "\u0663\u0664", "7"}));
    EXPECT_TRUE(is_word(U'_') && is_word(U'\u00BD') && is_word(U'\u4E2D') && is_word(U'\u2167'));
    EXPECT_FALSE(is_word(U'-') || is_word(U'\u0301') || is_word(U'\u3002'));
}

TEST(Unicode, BadBytesBecomeReplacements) {
    EXPECT_EQ(decode_utf8("a\xFF\xE2\x82"), U"a\uFFFD\uFFFD");
    EXPECT_EQ(encode_utf8(U"\u4E2D\U0001F600z"), "\u4E2D\U0001F600z");
}

}  // namespace
}  // namespace winnow::scoring
