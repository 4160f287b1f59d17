// How a prompt enters the sessions of its configurations.
#include <winnow/error.h>

#include <algorithm>
#include <array>

#include "eval/prompt_parts.h"
#include "eval/runner.h"

namespace winnow::eval {

namespace {

TokenText text_of(const Model& model, std::span<const std::int32_t> tokens) {
    std::vector<std::string> pieces;
    for (const std::int32_t token : tokens) {
        pieces.push_back(model.piece(token, true));
    }
    return TokenText(pieces);
}

// What any prompt begins with: special tokens, the template's system prompt and its first marks.
int system_tokens(const Model& model, std::span<const std::int32_t> tokens) {
    std::vector<std::int32_t> other = model.tokenize("", true, true);
    if (model.has_chat_template()) {
        const std::array<ChatMessage, 1> messages{{{"user", "\x01"}}};
        other = tokenize_prompt(model, model.apply_chat_template(messages));
    }
    const auto apart = std::mismatch(tokens.begin(), tokens.end(), other.begin(), other.end());
    return static_cast<int>(apart.first - tokens.begin());
}

void pin_all(std::span<Session* const> sessions, std::span<const std::int32_t> tokens,
             const std::vector<std::string>& pin) {
    if (pin.empty() || sessions.empty()) {
        return;
    }
    const Model& model = sessions[0]->model();
    const TokenText text = text_of(model, tokens);
    const int system = system_tokens(model, tokens);
    for (const std::string& what : pin) {
        for (const auto& [first, last] : pinned_ranges(what, text, system)) {
            for (Session* session : sessions) {
                session->pin(first, last);
            }
        }
    }
}

}  // namespace

int question_token(const Model& model, std::span<const std::int32_t> tokens,
                   std::string_view question, std::string_view opening) {
    const TokenText text = text_of(model, tokens);
    return question_start("the suite", question, text,
                          text.text().size() - std::min(text.text().size(), opening.size()));
}

std::vector<SessionTiming> read_prompt(std::span<Session* const> sessions, const Prompt& prompt,
                                       const std::vector<std::string>& pin,
                                       const ShareCallback& progress) {
    pin_all(sessions, prompt.tokens, pin);
    std::vector<Session*> open, hidden;
    for (Session* session : sessions) {
        (session->options().question_hidden ? hidden : open).push_back(session);
    }
    if (!hidden.empty() && prompt.question_at == 0) {
        throw usage_error("--question-hidden is given, but prompt " + prompt.id +
                          " has no question that is known; needle and ruler have.");
    }
    const double part = open.empty() || hidden.empty() ? 1.0 : 0.5;
    const auto bar = [&](double from) {
        return [&progress, from, part](const Progress& at) {
            const double layer = at.layer + static_cast<double>(at.tokens) / at.tokens_total;
            return !progress || progress(from + part * layer / at.layers);
        };
    };
    const std::span<const std::int32_t> tokens(prompt.tokens);
    if (!open.empty()) {
        Session::prefill(open, tokens, bar(0.0));
    }
    if (!hidden.empty()) {
        Session::prefill(hidden, tokens.first(prompt.question_at), bar(1.0 - part));
    }
    std::vector<SessionTiming> timings;
    for (Session* session : sessions) {
        SessionTiming& timing = timings.emplace_back(session->timing());
        if (session->options().question_hidden) {
            session->prefill(tokens.subspan(prompt.question_at));
            timing.prefill_ms += session->timing().prefill_ms;
        }
    }
    return timings;
}

}  // namespace winnow::eval
