// Files the command line writes.
#pragma once

#include <string>

namespace winnow::cli {

/// Throws a failure Error that names the flag where `path` cannot be written. Leaves it as it is.
void check_writable(const std::string& flag, const std::string& path);

/// Replaces `path` at once: readers see the old file or the whole new one.
void replace_file(const std::string& flag, const std::string& path, const std::string& text);

}  // namespace winnow::cli
