// How names from hostile files and long paths appear in error sentences.
#include <algorithm>

#include "gguf/checks.h"

namespace winnow::gguf {

namespace {

constexpr std::size_t kShownBytes = 64;
constexpr std::size_t kShownPathBytes = 160;

std::string printable(std::string_view text) {
    std::string out(text);
    std::ranges::replace_if(
        out, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    return out;
}

/// Cutting must not split a UTF-8 character: steps over its continuation bytes.
bool is_continuation(char c) {
    return (static_cast<unsigned char>(c) & 0xc0U) == 0x80U;
}

}  // namespace

std::string shown_path(std::string_view path) {
    if (path.size() <= kShownPathBytes) return printable(path);
    path.remove_prefix(path.size() - kShownPathBytes);
    while (!path.empty() && is_continuation(path.front())) path.remove_prefix(1);
    return "..." + printable(path);
}

std::string quoted(std::string_view text) {
    if (text.size() <= kShownBytes) return "'" + printable(text) + "'";
    std::size_t length = kShownBytes;
    while (length > 0 && is_continuation(text[length])) --length;
    return "'" + printable(text.substr(0, length)) + "...'";
}

Error file_error(std::string_view path, std::string_view sentence) {
    return failure("'" + shown_path(path) + "': " + std::string(sentence));
}

}  // namespace winnow::gguf
