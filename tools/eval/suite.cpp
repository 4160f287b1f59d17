#include "eval/suite.h"

#include <winnow/error.h>

#include "core/nearest.h"
#include "text/sha256.h"

namespace winnow::eval {

const Suite& find_suite(const std::string& name) {
    std::vector<std::string> names;
    for (const Suite* suite : suites()) {
        if (name == suite->name) {
            return *suite;
        }
        names.emplace_back(suite->name);
    }
    throw usage_error("there is no suite '" + name + "'" + did_you_mean(name, names));
}

Tokenizer tokenizer_of(const std::shared_ptr<const Model>& model) {
    return {
        .tokenize = [model](std::string_view text) { return model->tokenize(text, false, false); },
        .detokenize =
            [model](std::span<const std::int32_t> tokens) {
                std::string text;
                for (const std::int32_t token : tokens) {
                    text += model->piece(token);
                }
                return text;
            }};
}

std::vector<std::int32_t> tokenize_prompt(const Model& model, std::string_view text) {
    const std::vector<std::int32_t> special = model.tokenize("", true, true);
    std::vector<std::int32_t> tokens = model.tokenize(text, false, true);
    const bool has_bos = !special.empty() && !tokens.empty() && tokens.front() == special.front();
    return special.empty() || has_bos ? tokens : model.tokenize(text, true, true);
}

std::string hash_text(std::string_view text) {
    return sha256_hex(std::as_bytes(std::span(text)));
}

int context_of(const Settings& settings, const Model& model) {
    return settings.context > 0 ? settings.context : model.info().trained_context;
}

}  // namespace winnow::eval
