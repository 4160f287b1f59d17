// Words for RULER's keys and word lists.
#pragma once

#include <string>
#include <vector>

namespace winnow::eval {

/// Keys are <adjective>-<noun>; lists of words are made of all of them. Sorted, distinct.
struct WordLists {
    std::vector<std::string> adjectives, nouns, all;
};

/// The lists of PyPI's wonderwords, built in: lower-case words of ASCII letters.
WordLists builtin_words();

/// One word a line, white space around it dropped, empty lines and repeats left out; each serves
/// as adjective and as noun. Throws a failure Error where fewer than 1,000 are left.
WordLists read_words(const std::string& path);

}  // namespace winnow::eval
