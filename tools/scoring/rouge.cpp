// Rouge-L at summary level as PyPI's rouge 1.0.1 computes it.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "scoring/metrics.h"
#include "scoring/unicode.h"

namespace winnow::scoring {

namespace {

using Sentence = std::vector<int>;  // words as numbers

// Gives equal words equal numbers.
class Words {
  public:
    int number(const std::string& word) {
        return numbers_.emplace(word, static_cast<int>(numbers_.size())).first->second;
    }

  private:
    std::unordered_map<std::string, int> numbers_;
};

// Parts between full stops, empty ones left out. A part of nothing but white space stays: the
// package sees one empty word in it.
std::vector<Sentence> sentences_of(std::string_view text, Words& words) {
    std::vector<Sentence> sentences;
    for (const std::string& part : split_at(text, '.')) {
        if (part.empty()) {
            continue;
        }
        Sentence sentence;
        for (const std::string& word : split_words(part)) {
            sentence.push_back(words.number(word));
        }
        if (sentence.empty()) {
            sentence.push_back(words.number(""));
        }
        sentences.push_back(std::move(sentence));
    }
    return sentences;
}

std::size_t distinct_words(const std::vector<Sentence>& sentences) {
    std::unordered_set<int> distinct;
    for (const Sentence& sentence : sentences) {
        distinct.insert(sentence.begin(), sentence.end());
    }
    return distinct.size();
}

// Adds the words of the longest common subsequence that the package's walk finds: back from the
// end, and on a tie towards a shorter y.
void add_lcs(const Sentence& x, const Sentence& y, std::vector<int>& table,
             std::unordered_set<int>& out) {
    const std::size_t width = y.size() + 1;
    table.assign((x.size() + 1) * width, 0);
    for (std::size_t i = 1; i <= x.size(); ++i) {
        int* row = table.data() + i * width;
        const int* above = row - width;
        for (std::size_t j = 1; j <= y.size(); ++j) {
            row[j] = x[i - 1] == y[j - 1] ? above[j - 1] + 1 : std::max(above[j], row[j - 1]);
        }
    }
    std::size_t i = x.size();
    std::size_t j = y.size();
    while (i > 0 && j > 0) {
        if (x[i - 1] == y[j - 1]) {
            out.insert(x[i - 1]);
            --i;
            --j;
        } else if (table[(i - 1) * width + j] > table[i * width + j - 1]) {
            --i;
        } else {
            --j;
        }
    }
}

}  // namespace

double rouge_l(std::string_view reply, std::string_view answer) {
    Words words;
    const std::vector<Sentence> replied = sentences_of(reply, words);
    const std::vector<Sentence> wanted = sentences_of(answer, words);
    if (replied.empty() || wanted.empty()) {
        return 0.0;
    }
    std::unordered_set<int> common;
    std::vector<int> table;
    for (const Sentence& reference : wanted) {
        for (const Sentence& sentence : replied) {
            add_lcs(reference, sentence, table, common);
        }
    }
    const auto shared = static_cast<double>(common.size());
    const double recall = shared / static_cast<double>(distinct_words(wanted));
    const double precision = shared / static_cast<double>(distinct_words(replied));
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8));
}

}  // namespace winnow::scoring
