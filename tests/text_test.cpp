// UTF-8, stop strings and tokenizers.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "text/llama_logs.h"
#include "text/utf8.h"
#include "text/vocab.h"
#include "text_vocab.h"

namespace winnow {
namespace {

// ---- UTF-8 and stop strings ----

TEST(Utf8, KeepsWholeCharactersAndReplacesTheRest) {
    EXPECT_EQ(sanitize_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
              "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    EXPECT_EQ(sanitize_utf8("\xFFx"), "\xEF\xBF\xBDx");
    EXPECT_EQ(sanitize_utf8("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");                  // overlong
    EXPECT_EQ(sanitize_utf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // surrogate
    EXPECT_EQ(sanitize_utf8("\xF4\x90\x80\x80").size(), 12U);  // past U+10FFFF
    EXPECT_EQ(sanitize_utf8("\xE2\x82"
                            "b"),
              "\xEF\xBF\xBD"
              "b");  // one per maximal part
    EXPECT_EQ(sanitize_utf8("\xF0\x9F\x98"), "\xEF\xBF\xBD");
    EXPECT_EQ(sanitize_utf8(std::string_view("\0", 1)), std::string("\0", 1));
}

TEST(Utf8, StreamsAlikeForEveryCut) {
    const std::string bytes = "h\xC3\xA9\xE2\x82\xAC\xFF\xF0\x9F\x98\x80\xE2\x82z\xF0\x9F";
    const std::string whole = sanitize_utf8(bytes);
    for (size_t a = 0; a <= bytes.size(); ++a) {
        for (size_t b = a; b <= bytes.size(); ++b) {
            Utf8Stream stream;
            std::string out = stream.push(bytes.substr(0, a));
            out += stream.push(bytes.substr(a, b - a));
            out += stream.push(bytes.substr(b));
            EXPECT_EQ(out + stream.finish(), whole) << a << " " << b;
        }
    }
    Utf8Stream stream;
    EXPECT_EQ(stream.push("\xE2"), "");
    EXPECT_EQ(stream.push("\x82"), "");
    EXPECT_EQ(stream.push("\xAC!"), "\xE2\x82\xAC!");
    EXPECT_EQ(stream.finish(), "");
}

TEST(StopMatcher, HoldsBackAndReleases) {
    StopMatcher stop({"User:", ""});
    EXPECT_EQ(stop.push("hello Us"), "hello ");
    EXPECT_EQ(stop.push("a"), "Usa");
    EXPECT_EQ(stop.push("UsUser"), "Us");
    EXPECT_FALSE(stop.stopped());
    EXPECT_EQ(stop.push(": more"), "");
    EXPECT_TRUE(stop.stopped());
    EXPECT_EQ(stop.matched(), "User:");
    EXPECT_EQ(stop.push("ignored"), "");
    EXPECT_EQ(stop.finish(), "");
    stop.reset();
    EXPECT_EQ(stop.push("abUse"), "ab");
    EXPECT_EQ(stop.finish(), "Use");
}

TEST(StopMatcher, TheMatchThatEndsFirstWins) {
    StopMatcher stop({"abcd", "bc"});
    EXPECT_EQ(stop.push("xab"), "x");
    EXPECT_EQ(stop.push("cd"), "a");
    EXPECT_EQ(stop.matched(), "bc");
    StopMatcher longest({"c", "abc"});
    EXPECT_EQ(longest.push("xabcx"), "x");
    EXPECT_EQ(longest.matched(), "abc");
    StopMatcher none({});
    EXPECT_EQ(none.push("all"), "all");
}

TEST(StopMatcher, CutsDoNotMatter) {
    const std::string text = "aab aabaaab end";
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        StopMatcher stop({"aaab"});
        std::string out = stop.push(text.substr(0, cut));
        out += stop.push(text.substr(cut));
        EXPECT_EQ(out + stop.finish(), "aab aab");
        EXPECT_TRUE(stop.stopped());
    }
}
TEST(Vocab, ReportsAMissingAndABrokenFile) {
    const std::string missing = error_of([] { Vocab::load("no/such/model.gguf"); });
    EXPECT_TRUE(has(missing, "failure: The tokenizer of 'no/such/model.gguf'")) << missing;
    const auto path = std::filesystem::temp_directory_path() / "winnow_text_test_broken.gguf";
    std::ofstream(path) << "GGUF, or so it says";
    const std::string broken = error_of([&] { Vocab::load(path.string()); });
    EXPECT_TRUE(has(broken, "winnow_text_test_broken.gguf")) << broken;
    std::filesystem::remove(path);
}

TEST(Vocab, LogsGoToTheCallbackOnly) {
    int messages = 0;
    std::string last;
    set_log_callback([&](int level, const std::string& text) {
        if (level == 4) last = text;
        ++messages;
    });
    error_of([] { Vocab::load("no/such/model.gguf"); });
    set_log_callback({});
    EXPECT_GT(messages, 0);
    EXPECT_FALSE(last.empty());
    const int before = messages;
    error_of([] { Vocab::load("no/such/model.gguf"); });
    EXPECT_EQ(messages, before);
}

TEST(Vocab, RoundTrips) {
    for (const char* file : {kSmol, kQwen}) {
        NEED_VOCAB(vocab, file);
        ASSERT_TRUE(vocab->has_tokens());
        for (const std::string& text :
             {std::string("Hello world"), std::string("  two  spaces\n\n\ttab "),
              std::string("na\xC3\xAFve \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80"),
              std::string("int main() { return 0; }\n"), std::string("a\0b", 3),
              std::string(200'000, ' ') + std::string(100'000, 'x'), std::string()}) {
            const auto tokens = vocab->tokenize(text, false, false);
            EXPECT_EQ(vocab->detokenize(tokens), text);
            std::string pieces;
            for (const int32_t token : tokens) pieces += vocab->piece(token, false);
            EXPECT_EQ(pieces, text);
        }
    }
}

TEST(Vocab, SpecialTokens) {
    NEED_VOCAB(vocab, kSmol);
    EXPECT_EQ(vocab->size(), 49152);
    EXPECT_EQ(vocab->tokenize("<|im_end|>", false, true), std::vector<int32_t>{2});
    EXPECT_GT(vocab->tokenize("<|im_end|>", false, false).size(), 1U);
    EXPECT_EQ(vocab->piece(2, true), "<|im_end|>");
    EXPECT_EQ(vocab->piece(2, false), "");
    EXPECT_EQ(vocab->detokenize(std::vector<int32_t>{2}, true), "<|im_end|>");
    EXPECT_EQ(vocab->bos(), 1);
    EXPECT_EQ(vocab->eos(), 2);
    EXPECT_TRUE(vocab->is_eog(2));
    EXPECT_FALSE(vocab->is_eog(1000));
    EXPECT_FALSE(vocab->add_bos());
    EXPECT_TRUE(has(error_of([&] { vocab->piece(49152, true); }), "Token 49152"));
    EXPECT_TRUE(has(error_of([&] { vocab->piece(-1, true); }), "Token -1"));
}

}  // namespace
}  // namespace winnow
