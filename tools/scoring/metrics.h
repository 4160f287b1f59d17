// The benchmarks' metrics, equal to the official Python implementations. Scores are 0..1, text is
// UTF-8. The suites' own scores, post-processing included, are in scoring/suites.h.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace winnow::scoring {

/// LongBench's qa_f1_score: lower case, no ASCII punctuation, no articles, F1 over words.
double qa_f1(std::string_view reply, std::string_view answer);

/// The "f" of "rouge-l" of PyPI's rouge 1.0.1: sentences end at full stops, the union of the
/// longest common subsequences over all pairs of sentences, distinct words counted once, 1e-8 in
/// the denominator; 0 where a side has no sentence. Departure: the package recurses, and LongBench
/// turns Python's RecursionError (two sentences of about 1,000 words together) into 0.
double rouge_l(std::string_view reply, std::string_view answer);

/// LongBench's classification_score: 1 / (class names found) if the right one is among them. Found
/// names that are part of the right one are dropped, except one that follows a dropped one: the
/// official code removes from the list it walks, which skips the next entry.
double classification(std::string_view reply, std::string_view answer,
                      std::span<const std::string> classes);

/// LongBench's count_score: the share of the numbers in the reply that equal the answer.
double count_share(std::string_view reply, std::string_view answer);

/// LongBench's retrieval_score: the same for the number behind the first `marker` of the answer.
/// Throws a failure Error where the answer has no such number.
double retrieval(std::string_view reply, std::string_view answer,
                 std::string_view marker = "Paragraph ");

/// LongBench's code_sim_score: fuzz_ratio / 100 of the reply's first line that is not blank and has
/// no `, # or //.
double code_similarity(std::string_view reply, std::string_view answer);

/// fuzz.ratio of fuzzywuzzy over python-Levenshtein: 100 times the indel similarity, rounded half
/// to even; 100 for equal texts and 0 where just one is empty.
int fuzz_ratio(std::string_view a, std::string_view b);

/// RULER's string matches, letter case aside: the fraction of `references` that the reply
/// contains, and whether it contains any. Control characters of the reply count as newlines. 0
/// without references.
double string_match_all(std::string_view reply, std::span<const std::string> references);
double string_match_any(std::string_view reply, std::span<const std::string> references);

/// The paper's needle score: the share of the distinct words of `expected` that the reply holds,
/// both lower-cased and split at white space. 0 where nothing is expected.
double word_overlap(std::string_view reply, std::string_view expected);

}  // namespace winnow::scoring
