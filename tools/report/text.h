// Numbers and texts as tables, file names, HTML and CSV need them.
#pragma once

#include <string>
#include <string_view>

namespace winnow::report {

/// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

/// "512 B", "38.1 KiB", "4.10 MiB".
std::string human_bytes(double bytes);
/// "12,345".
std::string with_commas(double number);
/// A number as CSV and JSON have it, with all its digits; "" for NaN.
std::string exact(double number);
/// `digits` behind the point; "-" for NaN.
std::string fixed(double number, int digits);
/// Three significant digits, never an exponent above 1e-4; "-" for NaN.
std::string significant(double number);

/// Safe inside HTML and XML, in texts and in quoted attributes; control characters are replaced.
std::string escaped(std::string_view text);
/// At most `most` code points of UTF-8, "..." behind them where more were there.
std::string shortened(const std::string& text, std::size_t most);
/// Lower-case letters, digits and dashes: a part of a file name.
std::string slug(std::string_view text);
/// One field of RFC 4180, quoted where needed. A text that a spreadsheet would take for a formula
/// gets an apostrophe before it.
std::string csv_field(const std::string& text);

}  // namespace winnow::report
