// What a RULER task is to the generator: a text that grows by units of haystack.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/datasets/random.h"
#include "eval/datasets/ruler.h"
#include "eval/datasets/words.h"

namespace winnow::eval {

/// A sample's text at some size.
struct RulerText {
    std::string input;          ///< up to the end of the question
    std::string answer_prefix;  ///< opens the answer
    std::vector<std::string> outputs;

    std::string raw() const { return input + " " + answer_prefix; }
};

/// One sample before its size is known. make(n) draws everything from its own copy of the random
/// stream, so the needles are the same for every n.
struct RulerDraft {
    std::function<RulerText(int units)> make;
    int min_units = 1;
    int max_units = 1;
};

/// A document of a question's haystack, and the questions; from SQuAD or HotpotQA.
struct Questions {
    struct Question {
        std::string text;
        std::vector<std::string> answers;
        std::vector<int> documents;  ///< that hold the answer
        std::vector<int> related;    ///< of the same article; used before others
    };
    std::vector<std::string> documents;
    std::vector<Question> questions;
};

/// What the tasks draw from, read once.
struct RulerSources {
    int length = 0;                  ///< RulerOptions::length; cwe and fwe are shaped by it
    std::vector<std::string> essay;  ///< words of the essays
    WordLists words;
    Questions squad, hotpotqa;
};

enum class RulerNeed { nothing, essay, words, essay_and_words, squad, hotpotqa };

struct RulerTask {
    std::string_view name;
    int max_new_tokens;
    RulerNeed need;
    RulerDraft (*draft)(const RulerSources& sources, Random random, int index);
};

std::span<const RulerTask> niah_tasks();
std::span<const RulerTask> list_tasks();  ///< vt, cwe, fwe
std::span<const RulerTask> qa_tasks();

Questions read_squad(const std::string& path);
Questions read_hotpotqa(const std::string& path);

/// Sorted places for `needles` among n units, 0..n: drawn in millionths, so that a needle stays at
/// its depth when n changes.
std::vector<int> draw_places(Random& random, int needles, int n);

/// The i-th sentence of a text that says nothing, over and over.
std::string noise_sentence(int i);

/// "a", "a and b", "a, b, and c".
std::string enumerate(const std::vector<std::string>& names);

}  // namespace winnow::eval
