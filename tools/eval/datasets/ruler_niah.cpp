// RULER's eight needle tasks: keys and values hidden in noise, in essays, or among other needles.
#include <algorithm>
#include <array>

#include "eval/datasets/ruler_task.h"

namespace winnow::eval {

namespace {

enum class Haystack { noise, essay, needles };
enum class Kind { words, numbers, codes };

struct Shape {
    Haystack haystack;
    Kind key;
    Kind value;
    int keys = 1;     // needles with keys of their own
    int values = 1;   // of each key
    int queries = 1;  // keys asked for
};

std::string draw_number(Random& random) {
    return std::to_string(1000000 + random.below(9000000));
}

// A version 4 UUID.
std::string draw_code(Random& random) {
    static constexpr char kHex[] = "0123456789abcdef";
    std::string code = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
    for (char& c : code) {
        if (c == 'x') {
            c = kHex[random.below(16)];
        } else if (c == 'y') {
            c = kHex[8 + random.below(4)];
        }
    }
    return code;
}

std::string draw(Kind kind, const WordLists& words, Random& random) {
    switch (kind) {
        case Kind::words: {
            const std::string& adjective = random.choose(words.adjectives);
            return adjective + "-" + random.choose(words.nouns);
        }
        case Kind::numbers:
            return draw_number(random);
        case Kind::codes:
            return draw_code(random);
    }
    return {};
}

std::string noun_of(Kind value, bool several) {
    return std::string(value == Kind::codes ? "secret code" : "secret number") +
           (several ? "s" : "");
}

std::string needle_of(const Shape& shape, const std::string& key, const std::string& value) {
    return (shape.values > 1 ? "One " : "The ") + noun_of(shape.value, false) + " of " + key +
           " is " + value + ".";
}

// Sentences end where a word ends with a stop, closing quotes and brackets aside.
bool ends_sentence(std::string_view word) {
    const std::size_t last = word.find_last_not_of("\"')]");
    return last != std::string_view::npos &&
           std::string_view(".!?").find(word[last]) != std::string_view::npos;
}

// The first n words of the essays, begun anew where they are too short, with the needles at ends
// of sentences.
std::string in_essay(const std::vector<std::string>& essay, int n,
                     const std::vector<std::string>& needles, Random& random) {
    const auto word = [&](int i) -> const std::string& {
        return essay[static_cast<std::size_t>(i) % essay.size()];
    };
    std::vector<int> ends = {0};  // words before each place where a needle may stand
    for (int i = 0; i < n; ++i) {
        if (ends_sentence(word(i)) && i + 1 < n) {
            ends.push_back(i + 1);
        }
    }
    ends.push_back(n);
    const std::vector<int> places =
        draw_places(random, static_cast<int>(needles.size()), static_cast<int>(ends.size()) - 1);
    std::string text;
    std::size_t next = 0;
    for (int i = 0; i <= n; ++i) {
        while (next < needles.size() && ends[static_cast<std::size_t>(places[next])] == i) {
            text += (text.empty() ? "" : " ") + needles[next++];
        }
        if (i < n) {
            text += (text.empty() ? "" : " ") + word(i);
        }
    }
    return text;
}

// Lines of a haystack with the needles between them.
std::string between(const std::vector<std::string>& units, const std::vector<std::string>& needles,
                    std::string_view separator, Random& random) {
    const int n = static_cast<int>(units.size());
    const std::vector<int> places = draw_places(random, static_cast<int>(needles.size()), n);
    std::string text;
    std::size_t next = 0;
    for (int i = 0; i <= n; ++i) {
        while (next < needles.size() && places[next] == i) {
            text += needles[next++];
            text += separator;
        }
        if (i < n) {
            text += units[static_cast<std::size_t>(i)];
            text += separator;
        }
    }
    text.resize(text.size() - separator.size());
    return text;
}

std::string context_of(const Shape& shape, const RulerSources& sources, int n,
                       const std::vector<std::string>& needles,
                       const std::vector<std::string>& keys, Random& random) {
    Random places = random.fork();  // so that they do not depend on n
    if (shape.haystack == Haystack::essay) {
        return in_essay(sources.essay, n, needles, places);
    }
    std::vector<std::string> units;
    for (int i = 0; i < n; ++i) {
        if (shape.haystack == Haystack::noise) {
            units.push_back(noise_sentence(i));
            continue;
        }
        std::string key = draw(shape.key, sources.words, random);
        while (std::find(keys.begin(), keys.end(), key) != keys.end()) {
            key = draw(shape.key, sources.words, random);
        }
        units.push_back(needle_of(shape, key, draw(shape.value, sources.words, random)));
    }
    return between(units, needles, shape.haystack == Haystack::noise ? " " : "\n", places);
}

RulerText make(const Shape& shape, const RulerSources& sources, Random random, int n) {
    std::vector<std::string> keys;
    std::vector<std::string> needles;
    std::vector<std::vector<std::string>> values;
    while (static_cast<int>(keys.size()) < shape.keys) {
        std::string key = draw(shape.key, sources.words, random);
        if (std::find(keys.begin(), keys.end(), key) != keys.end()) {
            continue;
        }
        values.emplace_back();
        for (int v = 0; v < shape.values; ++v) {
            values.back().push_back(draw(shape.value, sources.words, random));
            needles.push_back(needle_of(shape, key, values.back().back()));
        }
        keys.push_back(std::move(key));
    }
    random.shuffle(needles);
    std::vector<std::size_t> order(keys.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
    }
    random.shuffle(order);

    RulerText text;
    std::vector<std::string> asked;
    for (int q = 0; q < shape.queries; ++q) {
        const std::size_t i = order[static_cast<std::size_t>(q)];
        asked.push_back(keys[i]);
        text.outputs.insert(text.outputs.end(), values[i].begin(), values[i].end());
    }
    const bool several = shape.queries * shape.values > 1;
    const std::string wanted = noun_of(shape.value, several) + " of " + enumerate(asked);
    text.input =
        "The text below hides " +
        (several ? "some " + noun_of(shape.value, true) : "a " + noun_of(shape.value, false)) +
        ". Remember " + (several ? "them" : "it") + "; a question about it follows.\n" +
        context_of(shape, sources, n, needles, keys, random) + "\n" +
        (several ? "What are all the " : "What is the ") + wanted + " given in the text above?";
    text.answer_prefix = "The " + wanted + " given in the text " + (several ? "are" : "is");
    return text;
}

RulerDraft draft_of(const Shape& shape, const RulerSources& sources, const Random& random) {
    return {.make = [shape, &sources, random](int n) { return make(shape, sources, random, n); },
            .min_units = shape.haystack == Haystack::essay ? 10 : 1,
            .max_units = 1 << 22};
}

// One function per task, made of its shape.
template <Haystack haystack, Kind key, Kind value, int keys = 1, int values = 1, int queries = 1>
RulerDraft draft(const RulerSources& sources, Random random, int /*index*/) {
    return draft_of({haystack, key, value, keys, values, queries}, sources, random);
}

using enum Haystack;
constexpr RulerTask kTasks[] = {
    {"niah_single_1", 128, RulerNeed::words, draft<noise, Kind::words, Kind::numbers>},
    {"niah_single_2", 128, RulerNeed::essay_and_words, draft<essay, Kind::words, Kind::numbers>},
    {"niah_single_3", 128, RulerNeed::essay_and_words, draft<essay, Kind::words, Kind::codes>},
    {"niah_multikey_1", 128, RulerNeed::essay_and_words,
     draft<essay, Kind::words, Kind::numbers, 4>},
    {"niah_multikey_2", 128, RulerNeed::words,
     draft<Haystack::needles, Kind::words, Kind::numbers>},
    {"niah_multikey_3", 128, RulerNeed::nothing,
     draft<Haystack::needles, Kind::codes, Kind::codes>},
    {"niah_multivalue", 128, RulerNeed::essay_and_words,
     draft<essay, Kind::words, Kind::numbers, 1, 4>},
    {"niah_multiquery", 128, RulerNeed::essay_and_words,
     draft<essay, Kind::words, Kind::numbers, 4, 1, 4>},
};

}  // namespace

std::span<const RulerTask> niah_tasks() {
    return kTasks;
}

std::vector<int> draw_places(Random& random, int needles, int n) {
    std::vector<int> places;
    for (int i = 0; i < needles; ++i) {
        const std::uint64_t millionths = random.below(1000001);
        places.push_back(static_cast<int>(millionths * static_cast<std::uint64_t>(n) / 1000000));
    }
    std::sort(places.begin(), places.end());
    return places;
}

std::string noise_sentence(int i) {
    static constexpr const char* kSentences[] = {
        "The lamp is on.",     "The window is shut.",        "The tea is warm.",
        "Nothing moves here.", "We wait and then we go on.",
    };
    return kSentences[static_cast<std::size_t>(i) % std::size(kSentences)];
}

std::string enumerate(const std::vector<std::string>& names) {
    std::string text;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const bool last = i + 1 == names.size();
        text += i == 0 ? "" : !last ? ", " : names.size() > 2 ? ", and " : " and ";
        text += names[i];
    }
    return text;
}

}  // namespace winnow::eval
