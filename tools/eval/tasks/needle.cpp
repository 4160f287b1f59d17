// The needle in a haystack: one fact in a long text, asked for at the end.
#include <winnow/error.h>

#include <cstdio>

#include "eval/haystack.h"
#include "eval/lengths.h"
#include "eval/needle_prompt.h"
#include "eval/suite.h"
#include "scoring/suites.h"

namespace winnow::eval {

namespace {

constexpr int kMostTokens = 30;  // of an answer

struct Cell {
    bool number = false;
    int length = 0;
    int depth = 0;  // percent
    int sample = 0;
};

std::vector<Cell> cells_of(const Settings& s, const Model& model) {
    std::vector<bool> kinds;
    if (s.needle == "sf" || s.needle == "sf,number" || s.needle == "number,sf") {
        kinds.push_back(false);
    }
    if (s.needle != "sf") {
        kinds.push_back(true);
    }
    std::vector<Cell> cells;
    for (const bool number : kinds) {
        for (const int length : lengths_of(s, model, {1000, 2000, 3000, 4000}, kMostTokens)) {
            for (int i = 0; i < s.depths; ++i) {
                // Half up, so that 11 depths are 0, 10, ... and 5 are 0, 25, ...
                const int depth =
                    s.depths == 1 ? 50 : (200 * i + s.depths - 1) / (2 * (s.depths - 1));
                for (int sample = 0; sample < std::max(1, s.max_num_examples); ++sample) {
                    cells.push_back({number, length, depth, sample});
                }
            }
        }
    }
    return cells;
}

std::string id_of(const Cell& cell, int samples) {
    char text[64];
    std::snprintf(text, sizeof text, "%s-%d-%03d", cell.number ? "number" : "sf", cell.length,
                  cell.depth);
    return samples > 1 ? std::string(text) + "-s" + std::to_string(cell.sample) : text;
}

void check(const Settings& s) {
    if (s.mode != "honest" && s.mode != "paper") {
        throw usage_error("--mode is '" + s.mode + "'; it takes honest or paper.");
    }
    if (s.needle != "sf" && s.needle != "number" && s.needle != "sf,number" &&
        s.needle != "number,sf") {
        throw usage_error("--needle is '" + s.needle + "'; it takes sf, number or sf,number.");
    }
    if (s.depths < 1 || s.depths > 101) {
        throw usage_error("--depths is " + std::to_string(s.depths) + "; it takes 1 to 101.");
    }
}

PromptSet open(const Settings& s, const std::shared_ptr<const Model>& model) {
    check(s);
    const std::string text = read_texts(s.haystack, s.mode == "paper" ? "" : "\n", "--haystack");
    const auto haystack = std::make_shared<Haystack>(model, text);
    const auto cells = std::make_shared<const std::vector<Cell>>(cells_of(s, *model));
    PromptSet set;
    for (const Cell& cell : *cells) {
        set.ids.push_back(id_of(cell, s.max_num_examples));
        set.weights.push_back(cell.length);
    }
    set.make = [=, ids = set.ids](std::size_t i) {
        const Cell& cell = (*cells)[i];
        // Every cell has a number of its own, the same in every run of this seed.
        const std::uint64_t seed = s.seed * 1000003U + cell.length * 10007U + cell.depth * 101U +
                                   static_cast<std::uint64_t>(cell.sample);
        const Needle needle =
            cell.number ? number_needle(seed) : sf_needle(s.mode, s.answer_prefix);
        const auto first = static_cast<std::size_t>(cell.sample) * cell.length;
        NeedlePrompt made =
            s.mode == "paper"
                ? paper_prompt(*model, *haystack, needle, cell.length, cell.depth, first)
                : honest_prompt(*model, *haystack, needle, cell.length, cell.depth, first);
        Prompt prompt;
        prompt.id = ids[i];
        prompt.task = cell.number ? "needle_number" : "needle_sf";
        prompt.index = static_cast<int>(i);
        prompt.length = cell.length;
        prompt.depth = cell.depth;
        prompt.tokens = std::move(made.tokens);
        prompt.question_at =
            question_token(*model, prompt.tokens, needle.question, needle.answer_prefix);
        prompt.max_new_tokens = needle.max_new_tokens;
        prompt.stop_at_newline = needle.stop_at_newline;
        prompt.expected = {needle.expected};
        return prompt;
    };
    set.score = [](const Prompt& prompt, const std::string& reply) {
        const std::string& expected = prompt.expected.front();
        return prompt.task == "needle_number" ? scoring::needle_number_score(reply, expected)
                                              : scoring::needle_sf_score(reply, expected);
    };
    set.settings = {{"mode", s.mode},
                    {"needle", s.needle},
                    {"s_len", s.s_len},
                    {"e_len", s.e_len},
                    {"step", s.step},
                    {"depths", s.depths},
                    {"max_num_examples", std::max(1, s.max_num_examples)},
                    {"answer_prefix", s.answer_prefix},
                    {"haystack_sha256", hash_text(text)},
                    {"model_version", s.model_version}};
    return set;
}

// The needle's windows: the paper's own, and 32 in ours.
void adjust(const Settings& s, CacheOptions& options) {
    if (options.window_size == 0) {
        options.window_size = s.mode == "paper" && options.method == "pyramidkv" ? 8 : 32;
    }
}

}  // namespace

extern const Suite suite_needle;
const Suite suite_needle{
    .name = "needle",
    .summary = "one fact hidden in a long text, at lengths and depths",
    .open = open,
    .adjust = adjust,
};

}  // namespace winnow::eval
