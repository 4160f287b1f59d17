#include "scoring/unicode.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

namespace winnow::scoring {

namespace {

// The runs of code points for which `inside` holds.
template <class F>
std::vector<std::string> runs_of(std::string_view text, const F& inside) {
    std::vector<std::string> runs;
    std::u32string run;
    for (const char32_t c : decode_utf8(text)) {
        if (inside(c)) {
            run += c;
        } else if (!run.empty()) {
            runs.push_back(encode_utf8(run));
            run.clear();
        }
    }
    if (!run.empty()) {
        runs.push_back(encode_utf8(run));
    }
    return runs;
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
    std::u32string points;
    points.reserve(text.size());
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    const auto size = static_cast<std::int64_t>(text.size());
    for (std::int64_t i = 0; i < size;) {
        UChar32 c = 0;
        U8_NEXT_OR_FFFD(bytes, i, size, c);
        points += static_cast<char32_t>(c);
    }
    return points;
}

std::string encode_utf8(std::u32string_view text) {
    std::string bytes;
    bytes.reserve(text.size());
    for (const char32_t point : text) {
        char unit[U8_MAX_LENGTH];
        std::int32_t size = 0;
        U8_APPEND_UNSAFE(unit, size, static_cast<UChar32>(point));
        bytes.append(unit, static_cast<std::size_t>(size));
    }
    return bytes;
}

std::string lower(std::string_view text) {
    std::string lowered;
    icu::UnicodeString::fromUTF8({text.data(), static_cast<std::int32_t>(text.size())})
        .toLower(icu::Locale::getRoot())
        .toUTF8String(lowered);
    return lowered;
}

bool is_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_decimal(char32_t c) {
    return u_charType(static_cast<UChar32>(c)) == U_DECIMAL_DIGIT_NUMBER;
}

bool is_word(char32_t c) {
    const auto point = static_cast<UChar32>(c);
    return c == U'_' || u_isalpha(point) != 0 || u_getNumericValue(point) != U_NO_NUMERIC_VALUE;
}

std::string strip(std::string_view text) {
    const std::u32string points = decode_utf8(text);
    std::size_t first = 0;
    std::size_t end = points.size();
    while (first < end && is_space(points[first])) {
        ++first;
    }
    while (end > first && is_space(points[end - 1])) {
        --end;
    }
    return encode_utf8(std::u32string_view(points).substr(first, end - first));
}

std::vector<std::string> split_words(std::string_view text) {
    return runs_of(text, [](char32_t c) { return !is_space(c); });
}

std::vector<std::string> split_at(std::string_view text, char separator) {
    std::vector<std::string> parts;
    for (;;) {
        const std::size_t end = text.find(separator);
        parts.emplace_back(text.substr(0, end));
        if (end == std::string_view::npos) {
            return parts;
        }
        text.remove_prefix(end + 1);
    }
}

std::vector<std::string> find_numbers(std::string_view text) {
    return runs_of(text, is_decimal);
}

}  // namespace winnow::scoring
