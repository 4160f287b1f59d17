// A folder of essays to hide needles in.
#pragma once

#include <string>
#include <vector>

namespace winnow::eval {

/// The folder's *.txt files in name order, joined by a newline. Throws a failure Error where the
/// folder is missing or no file has text; `needed_by` says what needs it.
std::string read_haystack(const std::string& folder, const std::string& needed_by);

}  // namespace winnow::eval
