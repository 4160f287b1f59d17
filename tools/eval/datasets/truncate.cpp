#include "eval/dataset.h"

namespace winnow::eval {

std::string truncate_middle(const std::string& text, int max_tokens, const Tokenizer& tokenizer) {
    const std::vector<std::int32_t> tokens = tokenizer.tokenize(text);
    if (static_cast<int>(tokens.size()) <= max_tokens) {
        return text;
    }
    for (int half = max_tokens / 2; half > 0; --half) {
        const std::span<const std::int32_t> all(tokens);
        std::string joined = tokenizer.detokenize(all.first(half));
        joined += tokenizer.detokenize(all.last(half));
        if (tokenizer.count(joined) <= max_tokens) {
            return joined;
        }
    }
    return {};
}

}  // namespace winnow::eval
