#include "eval/datasets/words.h"

#include <winnow/error.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace winnow::eval {

// Defined in a file that CMake writes from the pinned package.
extern const char* const kWordNouns;
extern const char* const kWordAdjectives;
extern const char* const kWordVerbs;

namespace {

constexpr std::size_t kFewest = 1000;  // a list of 4,096 tokens draws about 150

bool is_plain(const std::string& word) {
    return !word.empty() &&
           std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

void make_distinct(std::vector<std::string>& words) {
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
}

std::vector<std::string> lines_of(std::istream& in) {
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) {
        const std::size_t first = line.find_first_not_of(" \t\r");
        if (first != std::string::npos) {
            lines.push_back(line.substr(first, line.find_last_not_of(" \t\r") - first + 1));
        }
    }
    return lines;
}

std::vector<std::string> builtin_list(const char* text) {
    std::istringstream in(text);
    std::vector<std::string> words = lines_of(in);
    std::erase_if(words, [](const std::string& word) { return !is_plain(word); });
    make_distinct(words);
    return words;
}

}  // namespace

WordLists builtin_words() {
    WordLists lists;
    lists.adjectives = builtin_list(kWordAdjectives);
    lists.nouns = builtin_list(kWordNouns);
    lists.all = builtin_list(kWordVerbs);
    lists.all.insert(lists.all.end(), lists.adjectives.begin(), lists.adjectives.end());
    lists.all.insert(lists.all.end(), lists.nouns.begin(), lists.nouns.end());
    make_distinct(lists.all);
    return lists;
}

WordLists read_words(const std::string& path) {
    errno = 0;
    std::ifstream in(path);
    if (!in) {
        throw failure("The word list '" + path + "' cannot be read: " + std::strerror(errno) + ".");
    }
    WordLists lists;
    lists.all = lines_of(in);
    make_distinct(lists.all);
    if (lists.all.size() < kFewest) {
        throw failure("The word list '" + path + "' has " + std::to_string(lists.all.size()) +
                      " different words; RULER needs a list of at least " +
                      std::to_string(kFewest) + ", one a line.");
    }
    lists.adjectives = lists.all;
    lists.nouns = lists.all;
    return lists;
}

}  // namespace winnow::eval
