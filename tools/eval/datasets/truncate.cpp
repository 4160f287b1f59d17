#include "eval/dataset.h"
#include "scoring/unicode.h"

namespace winnow::eval {

namespace {

// Their text; a character cut in two becomes U+FFFD, as decoders do it.
std::string text_of(std::span<const std::int32_t> tokens, const Tokenizer& tokenizer) {
    return scoring::encode_utf8(scoring::decode_utf8(tokenizer.detokenize(tokens)));
}

}  // namespace

std::string truncate_middle(const std::string& text, int max_tokens, const Tokenizer& tokenizer) {
    const std::vector<std::int32_t> tokens = tokenizer.tokenize(text);
    if (static_cast<int>(tokens.size()) <= max_tokens) {
        return text;
    }
    const std::span<const std::int32_t> all(tokens);
    for (int half = max_tokens / 2; half > 0; --half) {
        std::string joined = text_of(all.first(half), tokenizer);
        // Some tokenizers put a space before every text; it would be one more each time.
        if (joined.starts_with(' ') && !text.starts_with(' ')) {
            joined.erase(0, 1);
        }
        joined += text_of(all.last(half), tokenizer);
        if (tokenizer.count(joined) <= max_tokens) {
            return joined;
        }
    }
    return {};
}

}  // namespace winnow::eval
