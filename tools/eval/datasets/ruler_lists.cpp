// RULER's tasks over lists: variable tracking (vt), common words (cwe), frequent words (fwe).
#include <algorithm>
#include <cmath>
#include <set>

#include "eval/datasets/ruler_task.h"

namespace winnow::eval {

namespace {

// ---- vt: one chain of 4 hops in noise, behind a worked example ----

constexpr int kHops = 4;
constexpr int kExampleNoise = 30;  // sentences around the example's chain

struct Chain {
    std::string value;
    std::vector<std::string> variables;
};

Chain draw_chain(Random& random, int letters) {
    Chain chain{.value = std::to_string(10000 + random.below(90000)), .variables = {}};
    while (static_cast<int>(chain.variables.size()) < kHops + 1) {
        std::string name;
        for (int i = 0; i < letters; ++i) {
            name += static_cast<char>('A' + random.below(26));
        }
        if (std::find(chain.variables.begin(), chain.variables.end(), name) ==
            chain.variables.end()) {
            chain.variables.push_back(name);
        }
    }
    return chain;
}

std::string assignment(const Chain& chain, std::size_t i) {
    return "Set " + chain.variables[i] + " to " + (i == 0 ? chain.value : chain.variables[i - 1]) +
           ".";
}

// The assignments in their order between n sentences of noise.
std::string chain_text(const Chain& chain, int n, Random random) {
    const std::vector<int> places = draw_places(random, kHops + 1, n);
    std::string text;
    std::size_t next = 0;
    for (int i = 0; i <= n; ++i) {
        while (next < places.size() && places[next] == i) {
            text += assignment(chain, next++) + " ";
        }
        if (i < n) {
            text += noise_sentence(i) + " ";
        }
    }
    text.pop_back();
    return text;
}

std::string chain_question(const Chain& chain, const std::string& context) {
    return "The text below sets variables, some of them to the value of others. Keep track of "
           "them.\n\n" +
           context + "\nQuestion: Which variables have the value " + chain.value + " in the end?";
}

std::string chain_opening(const Chain& chain) {
    return "Answer: " + std::to_string(chain.variables.size()) + " variables have the value " +
           chain.value + ":";
}

RulerDraft draft_vt(const RulerSources& /*sources*/, Random random, int /*index*/) {
    const Chain example = draw_chain(random, 3);
    const Chain chain = draw_chain(random, 5);
    const std::string shown =
        chain_question(example, chain_text(example, kExampleNoise, random.fork())) + " " +
        chain_opening(example) + " " + enumerate(example.variables) + "\n\n";
    const auto make = [=](int n) {
        return RulerText{.input = shown + chain_question(chain, chain_text(chain, n, random)),
                         .answer_prefix = chain_opening(chain),
                         .outputs = chain.variables};
    };
    return {.make = make, .min_units = 1, .max_units = 1 << 22};
}

// ---- cwe: ten words that stand in a list more often than the others ----

constexpr int kCommonWords = 10;

struct Repeats {
    int common, uncommon;
    int example_words, example_common, example_uncommon;
};

Repeats repeats_at(int length) {
    return length < 4096 ? Repeats{6, 1, 20, 3, 1} : Repeats{30, 3, 40, 10, 3};
}

std::string numbered(const std::vector<std::string>& words) {
    std::string text;
    for (std::size_t i = 0; i < words.size(); ++i) {
        text += (i > 0 ? " " : "") + std::to_string(i + 1) + ". " + words[i];
    }
    return text;
}

using WordSpan = std::span<const std::string>;

std::string words_question(WordSpan common, WordSpan uncommon, int times, int other_times,
                           Random random) {
    std::vector<std::string> list;
    for (const std::string& word : common) {
        list.insert(list.end(), static_cast<std::size_t>(times), word);
    }
    for (const std::string& word : uncommon) {
        list.insert(list.end(), static_cast<std::size_t>(other_times), word);
    }
    random.shuffle(list);
    return "The numbered list below holds some words more often than others. Remember the most "
           "frequent ones.\n" +
           numbered(list) + "\nQuestion: Which 10 words are in the list most often?";
}

RulerDraft draft_cwe(const RulerSources& sources, Random random, int /*index*/) {
    const Repeats repeats = repeats_at(sources.length);
    std::vector<std::string> words = sources.words.all;
    random.shuffle(words);
    const std::string opening = "Answer: The 10 words that are in the list most often are:";
    const WordSpan shown = WordSpan(words).last(static_cast<std::size_t>(repeats.example_words));
    const std::vector<std::string> solution(shown.begin(), shown.begin() + kCommonWords);
    const std::string example =
        words_question(shown.first(kCommonWords), shown.subspan(kCommonWords),
                       repeats.example_common, repeats.example_uncommon, random.fork()) +
        " " + opening + " " + numbered(solution) + "\n\n";
    const int spare = static_cast<int>(words.size()) - repeats.example_words - kCommonWords;
    const auto make = [=, words = std::move(words)](int n) {
        const WordSpan common = WordSpan(words).first(kCommonWords);
        const WordSpan others = WordSpan(words).subspan(kCommonWords, static_cast<std::size_t>(n));
        return RulerText{.input = example + words_question(common, others, repeats.common,
                                                           repeats.uncommon, random),
                         .answer_prefix = opening,
                         .outputs = {common.begin(), common.end()}};
    };
    return {.make = make, .min_units = 1, .max_units = spare};
}

// ---- fwe: coded words whose frequency falls with the square of their rank ----

constexpr int kWordLetters = 6;
constexpr double kZeta2 = 1.6449340668482264;  // pi^2 / 6
constexpr int kFewestWords = 100;              // the 4th word is then seen more often than the 5th

std::vector<std::string> draw_vocabulary(Random& random, int size) {
    std::set<std::string> seen;
    std::vector<std::string> vocabulary = {"..."};  // the most frequent one is noise
    while (static_cast<int>(vocabulary.size()) < size) {
        std::string word;
        for (int i = 0; i < kWordLetters; ++i) {
            word += static_cast<char>('a' + random.below(26));
        }
        if (seen.insert(word).second) {
            vocabulary.push_back(word);
        }
    }
    return vocabulary;
}

RulerDraft draft_fwe(const RulerSources& sources, Random random, int /*index*/) {
    const std::vector<std::string> vocabulary =
        draw_vocabulary(random, std::max(8, sources.length / 50));
    const auto make = [=](int n) {
        std::vector<std::string> list;
        for (std::size_t k = 0; k < vocabulary.size(); ++k) {
            const auto rank = static_cast<double>(k + 1);
            const double times = n / (rank * rank) / kZeta2;
            list.insert(list.end(), static_cast<std::size_t>(times), vocabulary[k]);
        }
        Random order = random;
        order.shuffle(list);
        RulerText text;
        text.input =
            "The coded text below holds some coded words more often than others; its "
            "dots are no word. Find the three most frequent words. ";
        for (const std::string& word : list) {
            text.input += word + " ";
        }
        text.input.back() = '\n';
        text.input +=
            "Question: Which three words are in the coded text most often? Leave the "
            "dots aside and explain nothing.";
        text.answer_prefix = "Answer: The three words that are in the coded text most often are:";
        text.outputs = {vocabulary.begin() + 1, vocabulary.begin() + 4};
        return text;
    };
    return {.make = make, .min_units = kFewestWords, .max_units = 1 << 22};
}

constexpr RulerTask kTasks[] = {
    {"vt", 30, RulerNeed::nothing, draft_vt},
    {"cwe", 120, RulerNeed::words, draft_cwe},
    {"fwe", 50, RulerNeed::nothing, draft_fwe},
};

}  // namespace

std::span<const RulerTask> list_tasks() {
    return kTasks;
}

}  // namespace winnow::eval
