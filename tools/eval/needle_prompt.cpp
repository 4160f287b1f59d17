#include "eval/needle_prompt.h"

#include <winnow/error.h>

#include <algorithm>
#include <array>
#include <span>

#include "eval/haystack.h"
#include "eval/suite.h"

namespace winnow::eval {

namespace {

constexpr int kPaperRoom = 200;  // tokens of a length that the paper leaves to question and answer
constexpr int kNumberTokens = 12;
constexpr int kSentenceTokens = 30;

using Tokens = std::vector<std::int32_t>;

std::string join(const Model& model, std::span<const std::int32_t> tokens, std::int32_t special) {
    std::string text;
    for (const std::int32_t token : tokens) {
        text += model.piece(token, token == special);
    }
    return text;
}

// BOS where the tokenizer puts one before every text, else -1.
std::int32_t bos_of(const Model& model) {
    const Tokens special = model.tokenize("", true, true);
    return special.empty() ? -1 : special.front();
}

// splitmix64, so that draws are the same everywhere.
std::uint64_t draw(std::uint64_t& state) {
    std::uint64_t x = state += 0x9E3779B97F4A7C15U;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
    x = (x ^ x >> 27) * 0x94D049BB133111EBU;
    return x ^ x >> 31;
}

std::string wrapped(const Model& model, const std::string& context, const Needle& needle) {
    const std::string content =
        "Read the following text carefully and answer the question at the end.\n\n" + context +
        "\n\n" + needle.question;
    if (!model.has_chat_template()) {
        return content + "\n" + needle.answer_prefix;
    }
    const std::array<ChatMessage, 1> messages{{{"user", content}}};
    return model.apply_chat_template(messages) + needle.answer_prefix;
}

// The prompt over `count` tokens of haystack.
NeedlePrompt build_honest(const Model& model, std::span<const std::int32_t> hay,
                          const Needle& needle, int depth) {
    const auto limit =
        static_cast<std::size_t>(static_cast<std::int64_t>(hay.size()) * depth / 100);
    std::string context = join(model, hay, -1);
    const std::size_t at = sentence_end(context, join(model, hay.first(limit), -1).size());
    NeedlePrompt prompt;
    prompt.haystack_tokens = static_cast<int>(hay.size());
    std::size_t bytes = 0;
    while (bytes < at) {
        bytes += model.piece(hay[static_cast<std::size_t>(prompt.needle_at)]).size();
        ++prompt.needle_at;
    }
    context.insert(at, at == 0 ? needle.sentence + " " : " " + needle.sentence);
    prompt.text = wrapped(model, context, needle);
    prompt.tokens = tokenize_prompt(model, prompt.text);
    return prompt;
}

void require_room(int count, int length) {
    if (count < 1) {
        throw usage_error("a length of " + std::to_string(length) +
                          " tokens is too short for the question and the needle; raise --s-len.");
    }
}

}  // namespace

Needle sf_needle(const std::string& mode, bool answer_prefix) {
    Needle needle;
    needle.sentence =
        "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a "
        "sunny day.";
    needle.expected = "eat a sandwich and sit in dolores park on a sunny day.";
    needle.question = mode == "paper" ? "The best thing to do in San Francisco is: "
                                      : "What is the best thing to do in San Francisco?";
    needle.answer_prefix = answer_prefix ? "The best thing to do in San Francisco is" : "";
    needle.max_new_tokens = kSentenceTokens;
    needle.stop_at_newline = true;
    return needle;
}

Needle number_needle(std::uint64_t seed) {
    static constexpr std::array<const char*, 16> kKinds{
        "quiet",  "amber", "hollow", "northern", "brittle", "patient",  "silver", "crooked",
        "humble", "vivid", "rapid",  "distant",  "mellow",  "stubborn", "golden", "narrow"};
    static constexpr std::array<const char*, 16> kThings{
        "lantern", "harbour", "meadow", "anvil",  "orchard", "ferry",  "compass", "thistle",
        "quarry",  "beacon",  "saddle", "kettle", "lagoon",  "violin", "glacier", "walnut"};
    std::uint64_t state = seed;
    const std::string key = std::string(kKinds[draw(state) % kKinds.size()]) + "-" +
                            kThings[draw(state) % kThings.size()];
    Needle needle;
    needle.expected = std::to_string(1000000 + draw(state) % 9000000);
    needle.sentence =
        "One of the special magic numbers for " + key + " is: " + needle.expected + ".";
    needle.question =
        "What is the special magic number for " + key + " mentioned in the provided text?";
    needle.answer_prefix =
        "The special magic number for " + key + " mentioned in the provided text is";
    needle.max_new_tokens = kNumberTokens;
    return needle;
}

Haystack::Haystack(std::shared_ptr<const Model> model, std::string text)
    : model_(std::move(model)), text_(std::move(text)) {
    if (text_.find_first_not_of(" \t\r\n") == std::string::npos) {
        throw failure("--haystack holds no text but blanks.");
    }
}

Tokens Haystack::slice(std::size_t first, std::size_t count) {
    // Reading on from a longer text keeps the tokens before it; only the last ones may change.
    constexpr std::size_t kMargin = 64;
    std::size_t bytes = std::max<std::size_t>(4 * (first + count + kMargin), 4096);
    while (tokens_.size() < first + count + kMargin) {
        while (read_.size() < bytes) {
            read_ += read_.empty() ? "" : "\n";
            read_ += text_;
        }
        tokens_ = model_->tokenize(std::string_view(read_).substr(0, bytes), false, false);
        bytes += bytes / 2;
    }
    const auto begin = tokens_.begin() + static_cast<std::ptrdiff_t>(first);
    return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

NeedlePrompt honest_prompt(const Model& model, Haystack& haystack, const Needle& needle, int length,
                           int depth, std::size_t first) {
    // A cut between two line breaks may take two tokens at once, so that no count fits; then the
    // haystack begins a little later.
    constexpr std::size_t kShifts = 64;
    const int around = static_cast<int>(
        tokenize_prompt(model, wrapped(model, " " + needle.sentence, needle)).size());
    for (std::size_t shift = 0; shift < kShifts; ++shift) {
        int count = length - around;
        for (int attempt = 0; attempt < 4; ++attempt) {
            require_room(count, length);
            const Tokens hay = haystack.slice(first + shift, static_cast<std::size_t>(count));
            NeedlePrompt prompt = build_honest(model, hay, needle, depth);
            const int missing = length - static_cast<int>(prompt.tokens.size());
            if (missing == 0) {
                return prompt;
            }
            count += missing;
        }
    }
    throw failure("no cut of the haystack gives a prompt of exactly " + std::to_string(length) +
                  " tokens at depth " + std::to_string(depth) + " %; use another length.");
}

NeedlePrompt paper_prompt(const Model& model, Haystack& haystack, const Needle& needle, int length,
                          int depth, std::size_t first) {
    const std::int32_t bos = bos_of(model);
    const auto with_bos = [&](Tokens tokens) {
        if (bos >= 0) {
            tokens.insert(tokens.begin(), bos);
        }
        return tokens;
    };
    const Tokens inserted = with_bos(model.tokenize("\n" + needle.sentence + "\n", false, false));
    const int count = length - kPaperRoom - static_cast<int>(inserted.size());
    require_room(count, length);
    Tokens context = with_bos(haystack.slice(first, static_cast<std::size_t>(count)));
    context.resize(static_cast<std::size_t>(count));
    std::size_t at = context.size();
    if (depth < 100) {
        at = context.size() * static_cast<std::size_t>(depth) / 100;
        // Back to the last token that is a full stop.
        const Tokens stops = with_bos(model.tokenize(".", false, false));
        while (at > 0 && std::find(stops.begin(), stops.end(), context[at - 1]) == stops.end()) {
            --at;
        }
    }
    context.insert(context.begin() + static_cast<std::ptrdiff_t>(at), inserted.begin(),
                   inserted.end());
    NeedlePrompt prompt;
    prompt.haystack_tokens = count;
    prompt.needle_at = static_cast<int>(at);
    prompt.text = "<|im_start|> This is a very long story book: <book> " +
                  join(model, context, bos) + " </book>.\n Based on the content of the book, " +
                  "Question: " + needle.question + "\nAnswer:" + needle.answer_prefix;
    prompt.tokens = model.tokenize(prompt.text, true, true);
    return prompt;
}

}  // namespace winnow::eval
