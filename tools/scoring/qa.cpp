// LongBench's metrics for short answers: token F1, classification, count and retrieval.
#include <winnow/error.h>

#include <algorithm>
#include <map>
#include <vector>

#include "scoring/metrics.h"
#include "scoring/unicode.h"

namespace winnow::scoring {

namespace {

bool is_punctuation(char32_t c) {
    return (c >= U'!' && c <= U'/') || (c >= U':' && c <= U'@') || (c >= U'[' && c <= U'`') ||
           (c >= U'{' && c <= U'~');
}

bool is_article(std::u32string_view word) {
    return word == U"a" || word == U"an" || word == U"the";
}

// Replaces whole words that are articles by a space, as re.sub(r"\b(a|an|the)\b", " ", text).
std::u32string without_articles(const std::u32string& text) {
    std::u32string kept;
    for (std::size_t i = 0; i < text.size();) {
        std::size_t end = i;
        while (end < text.size() && is_word(text[end])) {
            ++end;
        }
        const std::u32string_view word = std::u32string_view(text).substr(i, end - i);
        if (is_article(word)) {
            kept += U' ';
        } else {
            kept += word;
        }
        if (end < text.size()) {
            kept += text[end++];
        }
        i = end;
    }
    return kept;
}

std::vector<std::string> normalized_words(std::string_view text) {
    std::u32string points = decode_utf8(lower(text));
    std::erase_if(points, is_punctuation);
    return split_words(encode_utf8(without_articles(points)));
}

double share_of(const std::vector<std::string>& numbers, std::string_view wanted) {
    if (numbers.empty()) {
        return 0.0;
    }
    const auto right = std::count(numbers.begin(), numbers.end(), wanted);
    return static_cast<double>(right) / static_cast<double>(numbers.size());
}

}  // namespace

double qa_f1(std::string_view reply, std::string_view answer) {
    const std::vector<std::string> replied = normalized_words(reply);
    const std::vector<std::string> wanted = normalized_words(answer);
    std::map<std::string_view, int> left;
    for (const std::string& word : wanted) {
        ++left[word];
    }
    int common = 0;
    for (const std::string& word : replied) {
        const auto found = left.find(word);
        if (found != left.end() && found->second > 0) {
            --found->second;
            ++common;
        }
    }
    if (common == 0) {
        return 0.0;
    }
    const double precision = 1.0 * common / static_cast<double>(replied.size());
    const double recall = 1.0 * common / static_cast<double>(wanted.size());
    return (2 * precision * recall) / (precision + recall);
}

double classification(std::string_view reply, std::string_view answer,
                      std::span<const std::string> classes) {
    std::vector<std::string_view> found;
    for (const std::string& name : classes) {
        if (reply.find(name) != std::string_view::npos) {
            found.emplace_back(name);
        }
    }
    // Removing while walking by index skips the entry behind a removed one, as in Python.
    for (std::size_t i = 0; i < found.size(); ++i) {
        const std::string_view name = found[i];
        if (name != answer && answer.find(name) != std::string_view::npos) {
            found.erase(std::find(found.begin(), found.end(), name));
        }
    }
    const bool right = std::find(found.begin(), found.end(), answer) != found.end();
    return right ? 1.0 / static_cast<double>(found.size()) : 0.0;
}

double count_share(std::string_view reply, std::string_view answer) {
    return share_of(find_numbers(reply), answer);
}

double retrieval(std::string_view reply, std::string_view answer, std::string_view marker) {
    for (std::size_t at = answer.find(marker); at != std::string_view::npos;
         at = answer.find(marker, at + 1)) {
        const std::string_view rest = answer.substr(at + marker.size());
        const std::u32string points = decode_utf8(rest);
        if (!points.empty() && is_decimal(points[0])) {
            return share_of(find_numbers(reply), find_numbers(rest)[0]);
        }
    }
    throw failure("The expected answer '" + std::string(answer.substr(0, 80)) +
                  "' has no number behind '" + std::string(marker) +
                  "'; a retrieval task's answers look like '" + std::string(marker) + "12'.");
}

}  // namespace winnow::scoring
