// Text as Python's str sees it: what the official metrics split, lower and match by.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace winnow::scoring {

/// Code points of UTF-8 text; bytes that are none become U+FFFD.
std::u32string decode_utf8(std::string_view text);
std::string encode_utf8(std::u32string_view text);

/// str.lower(): full mappings, final sigma included.
std::string lower(std::string_view text);

bool is_space(char32_t c);    ///< str.isspace() of one character
bool is_decimal(char32_t c);  ///< \d of the re module
bool is_word(char32_t c);     ///< \w of the re module

/// str.strip(): white space off both ends.
std::string strip(std::string_view text);

/// str.split() without arguments: words between runs of whitespace, none of them empty.
std::vector<std::string> split_words(std::string_view text);

/// str.split(separator): always at least one part, parts may be empty.
std::vector<std::string> split_at(std::string_view text, char separator);

/// re.findall(r"\d+").
std::vector<std::string> find_numbers(std::string_view text);

}  // namespace winnow::scoring
