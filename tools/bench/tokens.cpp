#include "bench/tokens.h"

#include <filesystem>
#include <random>

namespace winnow::bench {
namespace {

// A vocabulary without any ordinary token still gets its tokens.
constexpr int kTries = 64;

bool is_ordinary(const Model& model, std::int32_t token) {
    return !model.is_end_of_generation(token) && !model.piece(token).empty();
}

}  // namespace

BenchTokens text_tokens(const Model& model, const std::string& name, const std::string& text,
                        std::size_t count) {
    BenchTokens result;
    result.tokens = model.tokenize(text, true, false);
    if (result.tokens.empty()) {
        throw failure("-f names " + name + ", which holds no tokens for this model.");
    }
    result.source = std::filesystem::path(name).filename().string();
    const std::size_t once = result.tokens.size();
    if (once < count) result.source += ", repeated from token " + std::to_string(once) + " on";
    result.tokens.resize(count);
    for (std::size_t i = once; i < count; ++i) result.tokens[i] = result.tokens[i - once];
    return result;
}

BenchTokens synthetic_tokens(const Model& model, std::size_t count) {
    BenchTokens result;
    result.source = "synthetic tokens";
    std::mt19937_64 random(1);
    const auto vocabulary = static_cast<std::uint64_t>(model.info().vocabulary);
    while (result.tokens.size() < count) {
        auto token = static_cast<std::int32_t>(random() % vocabulary);
        for (int i = 0; i < kTries && !is_ordinary(model, token); ++i) {
            token = static_cast<std::int32_t>(random() % vocabulary);
        }
        result.tokens.push_back(token);
    }
    return result;
}

}  // namespace winnow::bench
