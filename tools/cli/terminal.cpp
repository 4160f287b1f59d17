#include "terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <winnow/error.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace winnow::cli {

bool is_terminal(int descriptor) {
    return isatty(descriptor) == 1;
}

int terminal_width(int descriptor) {
    winsize size{};
    if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

std::string format(const char* pattern, ...) {
    va_list arguments;
    va_start(arguments, pattern);
    va_list again;
    va_copy(again, arguments);
    const int length = std::vsnprintf(nullptr, 0, pattern, arguments);
    va_end(arguments);
    std::string text(static_cast<std::size_t>(std::max(length, 0)), '\0');
    std::vsnprintf(text.data(), text.size() + 1, pattern, again);
    va_end(again);
    return text;
}

std::string with_commas(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, 1, ',');
    return text;
}

std::string human_bytes(double bytes) {
    constexpr double kKibi = 1024.0;
    if (bytes < kKibi) return format("%.0f B", bytes);
    if (bytes < kKibi * kKibi) return format("%.1f KiB", bytes / kKibi);
    if (bytes < kKibi * kKibi * kKibi) return format("%.2f MiB", bytes / kKibi / kKibi);
    return format("%.2f GiB", bytes / kKibi / kKibi / kKibi);
}

std::string padded(std::string_view text, std::size_t width) {
    std::string line(text);
    if (line.size() < width) line.append(width - line.size(), ' ');
    return line;
}

std::string wrapped(std::string_view text, std::size_t width, std::size_t indent) {
    std::string result;
    std::size_t column = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, end);
        if (column > 0 && column + 1 + word.size() > width) {
            result += "\n" + std::string(indent, ' ');
            column = 0;
        }
        if (column > 0) {
            result += ' ';
            ++column;
        }
        result += word;
        column += word.size();
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return result;
}

void write_out(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
        throw failure(std::string("Cannot write to standard output: ") + std::strerror(errno) +
                      ".");
    }
}

void flush_out() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        throw failure(std::string("Cannot write to standard output: ") + std::strerror(errno) +
                      ".");
    }
}

void write_err(std::string_view text) {
    std::fflush(stdout);  // the order on a terminal that shows both
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
}

}  // namespace winnow::cli
