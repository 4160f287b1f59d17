// How close a compressed cache's predictions stay to the full cache's, on any text.
#include <winnow/error.h>

#include "eval/haystack.h"
#include "eval/lengths.h"
#include "eval/suite.h"

namespace winnow::eval {

namespace {

constexpr int kForced = 128;
constexpr int kOffsets = 4;
constexpr int kLength = 2000;

PromptSet open(const Settings& s, const std::shared_ptr<const Model>& model) {
    const std::string& path = s.file.empty() ? s.haystack : s.file;
    const std::string text = read_text_or_folder(path, "-f");
    const auto tokens =
        std::make_shared<const std::vector<std::int32_t>>(model->tokenize(text, false, false));
    const std::vector<std::int32_t> special = model->tokenize("", true, true);
    const int forced = s.force_tokens > 0 ? s.force_tokens : kForced;
    const int offsets = s.max_num_examples > 0 ? s.max_num_examples : kOffsets;
    struct Piece {
        int length;
        int sample;
        std::size_t first;
    };
    std::vector<Piece> pieces;
    PromptSet set;
    for (const int length : lengths_of(s, *model, {kLength}, forced + 1)) {
        const auto needed = static_cast<std::size_t>(length + forced + 1);
        if (tokens->size() < needed) {
            throw failure("-f names " + path + ", which has " + std::to_string(tokens->size()) +
                          " tokens, but a prompt of " + std::to_string(length) + " and " +
                          std::to_string(forced) + " forced tokens need " + std::to_string(needed) +
                          "; use a longer text or a lower --s-len.");
        }
        for (int i = 0; i < offsets; ++i) {
            const std::size_t room = tokens->size() - needed;
            const std::size_t first =
                offsets == 1 ? 0 : room * static_cast<std::size_t>(i) / (offsets - 1U);
            pieces.push_back({length, i, first});
            set.ids.push_back("text-" + std::to_string(length) + "-" + std::to_string(i));
            set.weights.push_back(length);
        }
    }
    set.make = [=, ids = set.ids](std::size_t i) {
        const Piece& piece = pieces[i];
        Prompt prompt;
        prompt.id = ids[i];
        prompt.task = "fidelity";
        prompt.index = piece.sample;
        prompt.length = piece.length;
        prompt.tokens = special;
        const auto from = tokens->begin() + static_cast<std::ptrdiff_t>(piece.first);
        const auto end = from + piece.length - static_cast<std::ptrdiff_t>(special.size());
        prompt.tokens.insert(prompt.tokens.end(), from, end);
        prompt.forced.assign(end, end + forced + 1);
        return prompt;
    };
    set.settings = {{"s_len", s.s_len},
                    {"e_len", s.e_len},
                    {"step", s.step},
                    {"force_tokens", forced},
                    {"max_num_examples", offsets},
                    {"pack_decode", s.pack_decode},
                    {"text_sha256", hash_text(text)},
                    {"model_version", s.model_version}};
    return set;
}

}  // namespace

extern const Suite suite_fidelity;
const Suite suite_fidelity{
    .name = "fidelity",
    .summary = "KL, top-1 agreement and perplexity against the full cache, on any text",
    .open = open,
};

}  // namespace winnow::eval
