#include "eval/prompt_parts.h"

#include <winnow/error.h>

#include <algorithm>
#include <charconv>

namespace winnow::eval {

namespace {

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kBlanks = " \t\r\n";
    const std::size_t first = text.find_first_not_of(kBlanks);
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
}

// A message names a long text by its beginning, at a whole character.
std::string quoted(std::string_view text) {
    constexpr std::size_t kShown = 60;
    if (text.size() <= kShown) {
        return "'" + std::string(text) + "'";
    }
    std::size_t end = kShown;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
        --end;
    }
    return "'" + std::string(text.substr(0, end)) + "...'";
}

}  // namespace

TokenText::TokenText(const std::vector<std::string>& pieces) {
    for (const std::string& piece : pieces) {
        text_ += piece;
        ends_.push_back(text_.size());
    }
}

TokenRange TokenText::range(std::size_t at, std::size_t size) const {
    const auto first = std::upper_bound(ends_.begin(), ends_.end(), at);
    const auto last = std::lower_bound(first, ends_.end(), at + size);
    return {static_cast<int>(first - ends_.begin()),
            static_cast<int>(last - ends_.begin()) + (last != ends_.end() ? 1 : 0)};
}

std::vector<TokenRange> pinned_ranges(const std::string& what, const TokenText& prompt,
                                      int system_tokens) {
    if (what == "system") {
        if (system_tokens == 0) {
            throw usage_error("--pin is 'system', but nothing stands before the user's text.");
        }
        return {{0, system_tokens}};
    }
    const bool digits = !what.empty() && what.find_first_not_of("0123456789") == std::string::npos;
    if (digits) {
        int count = 0;
        const auto [end, code] = std::from_chars(what.data(), what.data() + what.size(), count);
        if (code == std::errc() && count == 0) {
            throw usage_error("--pin is 0; it takes system, a number of first tokens, or a text.");
        }
        return {{0, code == std::errc() ? std::min(count, prompt.tokens()) : prompt.tokens()}};
    }
    if (what.empty()) {
        throw usage_error("--pin is empty; it takes system, a number of first tokens, or a text.");
    }
    std::vector<TokenRange> ranges;
    for (std::size_t at = prompt.text().find(what); at != std::string::npos;
         at = prompt.text().find(what, at + what.size())) {
        ranges.push_back(prompt.range(at, what.size()));
    }
    if (ranges.empty()) {
        throw usage_error("--pin is " + quoted(what) +
                          ", a text that does not occur in the prompt.");
    }
    return ranges;
}

int question_start(const std::string& flag, std::string_view question, const TokenText& prompt,
                   std::size_t end) {
    const std::string_view wanted = trimmed(question);
    const std::string_view text = std::string_view(prompt.text()).substr(0, end);
    const std::size_t at = wanted.empty() ? std::string_view::npos : text.rfind(wanted);
    if (at == std::string_view::npos) {
        throw usage_error("The question that " + flag + " gives, " + quoted(wanted) +
                          ", does not stand in the prompt; it may hold no blanks alone, and a chat "
                          "template must not change it.");
    }
    const int first = prompt.range(at, wanted.size()).first;
    if (first == 0) {
        throw usage_error("The question that " + flag +
                          " gives stands at the very beginning; a text must stand before it.");
    }
    return first;
}

}  // namespace winnow::eval
