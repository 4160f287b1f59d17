// Metrics on characters and whole strings: code similarity, RULER's matches, the needle's words.
#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "scoring/metrics.h"
#include "scoring/unicode.h"

namespace winnow::scoring {

namespace {

std::size_t common_subsequence(const std::u32string& a, const std::u32string& b) {
    std::vector<std::size_t> row(b.size() + 1, 0);
    for (const char32_t c : a) {
        std::size_t diagonal = 0;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t above = row[j];
            row[j] = c == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
            diagonal = above;
        }
    }
    return row.back();
}

bool is_code(std::string_view line) {
    return !split_words(line).empty() && line.find_first_of("`#") == std::string_view::npos &&
           line.find("//") == std::string_view::npos;
}

// RULER's post-processing: control characters become newlines, the ends are stripped.
std::string matchable(std::string_view reply) {
    std::string text(strip(reply));
    std::replace_if(
        text.begin(), text.end(), [](char c) { return c >= 0 && c < 0x20; }, '\n');
    return lower(strip(text));
}

int matches(std::string_view reply, std::span<const std::string> references) {
    const std::string text = matchable(reply);
    return static_cast<int>(
        std::count_if(references.begin(), references.end(), [&](const std::string& reference) {
            return text.find(lower(reference)) != std::string::npos;
        }));
}

std::set<std::string> word_set(std::string_view text) {
    const std::vector<std::string> words = split_words(lower(text));
    return {words.begin(), words.end()};
}

}  // namespace

int fuzz_ratio(std::string_view a, std::string_view b) {
    if (a == b) {
        return 100;
    }
    const std::u32string x = decode_utf8(a);
    const std::u32string y = decode_utf8(b);
    if (x.empty() || y.empty()) {
        return 0;
    }
    // In the very order of operations of the reference: halves round by their last bit.
    const std::size_t both = x.size() + y.size();
    const std::size_t distance = both - 2 * common_subsequence(x, y);
    const double ratio = 1.0 - static_cast<double>(distance) / static_cast<double>(both);
    return static_cast<int>(std::nearbyint(100 * ratio));
}

double code_similarity(std::string_view reply, std::string_view answer) {
    const std::vector<std::string> lines = split_at(reply, '\n');
    const auto line = std::find_if(lines.begin(), lines.end(), is_code);
    return fuzz_ratio(line == lines.end() ? std::string_view() : *line, answer) / 100.0;
}

double string_match_all(std::string_view reply, std::span<const std::string> references) {
    if (references.empty()) {
        return 0.0;
    }
    return static_cast<double>(matches(reply, references)) / static_cast<double>(references.size());
}

double string_match_any(std::string_view reply, std::span<const std::string> references) {
    return matches(reply, references) > 0 ? 1.0 : 0.0;
}

double word_overlap(std::string_view reply, std::string_view expected) {
    const std::set<std::string> wanted = word_set(expected);
    const std::set<std::string> replied = word_set(reply);
    if (wanted.empty()) {
        return 0.0;
    }
    const auto found = std::count_if(wanted.begin(), wanted.end(), [&](const std::string& word) {
        return replied.contains(word);
    });
    return static_cast<double>(found) / static_cast<double>(wanted.size());
}

}  // namespace winnow::scoring
