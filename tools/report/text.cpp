#include "report/text.h"

#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace winnow::report {

std::string format(const char* pattern, ...) {
    std::va_list args, again;
    va_start(args, pattern);
    va_copy(again, args);
    const int length = std::vsnprintf(nullptr, 0, pattern, args);
    va_end(args);
    std::string text(static_cast<std::size_t>(length), '\0');
    std::vsnprintf(text.data(), text.size() + 1, pattern, again);
    va_end(again);
    return text;
}

std::string human_bytes(double bytes) {
    if (std::isnan(bytes)) return "-";
    if (bytes < 1024) return format("%.0f B", bytes);
    constexpr std::array<const char*, 4> kUnits{"KiB", "MiB", "GiB", "TiB"};
    std::size_t unit = 0;
    bytes /= 1024;
    while (bytes >= 1024 && unit + 1 < kUnits.size()) {
        bytes /= 1024;
        ++unit;
    }
    return format(bytes < 10    ? "%.2f %s"
                  : bytes < 100 ? "%.1f %s"
                                : "%.0f %s",
                  bytes, kUnits[unit]);
}

std::string with_commas(double number) {
    std::string digits = format("%.0f", number);
    for (std::size_t end = digits.size(); end > 3 && digits[end - 4] != '-';) {
        end -= 3;
        digits.insert(end, ",");
    }
    return digits;
}

std::string exact(double number) {
    return std::isnan(number) ? "" : format("%.10g", number);
}

std::string fixed(double number, int digits) {
    return std::isnan(number) ? "-" : format("%.*f", digits, number);
}

std::string significant(double number) {
    if (std::isnan(number)) return "-";
    const double size = std::abs(number);
    if (size == 0) return "0";
    if (size < 1e-4) return format("%.1e", number);
    const int behind = 2 - static_cast<int>(std::floor(std::log10(size)));
    return format("%.*f", std::max(behind, 0), number);
}

std::string escaped(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        switch (c) {
            case '&':
                result += "&amp;";
                break;
            case '<':
                result += "&lt;";
                break;
            case '>':
                result += "&gt;";
                break;
            case '"':
                result += "&quot;";
                break;
            case '\'':
                result += "&#39;";
                break;
            default:
                if (byte == 0x7f || (byte < 0x20 && c != '\n' && c != '\t')) {
                    result += "\xef\xbf\xbd";  // U+FFFD: neither HTML nor XML may hold them
                } else {
                    result += c;
                }
        }
    }
    return result;
}

std::string shortened(const std::string& text, std::size_t most) {
    std::size_t seen = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
        if (starts && seen++ == most) return text.substr(0, i) + "...";
    }
    return text;
}

std::string slug(std::string_view text) {
    std::string result;
    for (const char c : text) {
        const bool upper = c >= 'A' && c <= 'Z';
        const char lower = upper ? static_cast<char>(c - 'A' + 'a') : c;
        if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) {
            result += lower;
        } else if (!result.empty() && result.back() != '-') {
            result += '-';
        }
    }
    result.resize(std::min<std::size_t>(result.size(), 48));
    while (!result.empty() && result.back() == '-') result.pop_back();
    return result.empty() ? "unnamed" : result;
}

std::string csv_field(const std::string& text) {
    std::string safe = text;
    const std::string_view risky = "=+-@";
    const bool number = !text.empty() && text.find_first_not_of("0123456789.e+-") == text.npos;
    if (!text.empty() && risky.find(text.front()) != risky.npos && !number) safe = "'" + text;
    if (safe.find_first_of(",\"\r\n") == safe.npos) return safe;
    std::string quoted = "\"";
    for (const char c : safe) {
        if (c == '"') quoted += '"';
        quoted += c;
    }
    return quoted + "\"";
}

}  // namespace winnow::report
