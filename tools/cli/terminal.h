// What is known of the terminal, and numbers made readable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace winnow::cli {

/// Whether a file descriptor (0, 1, 2) is a terminal.
bool is_terminal(int descriptor);
/// Columns of the terminal at `descriptor`; 80 when it does not say.
int terminal_width(int descriptor);

/// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);
/// "1,234,567".
std::string with_commas(std::uint64_t number);
/// "512 B", "38.1 KiB", "4.10 MiB", "1.25 GiB".
std::string human_bytes(double bytes);
/// `text` filled with blanks up to `width` columns.
std::string padded(std::string_view text, std::size_t width);
/// `text` cut into lines of at most `width` columns, each after the first behind `indent` blanks.
std::string wrapped(std::string_view text, std::size_t width, std::size_t indent);

/// Writes to stdout; throws a failure Error when it is closed or full.
void write_out(std::string_view text);
/// The same, and makes sure that all of it has left.
void flush_out();
/// Writes to stderr.
void write_err(std::string_view text);

}  // namespace winnow::cli
