// Long texts made of a folder's files, and where their sentences end.
#pragma once

#include <string>
#include <string_view>

namespace winnow::eval {

/// The .txt files of `folder` in name order, `between` them. Throws a failure Error that names
/// `flag` and says what belongs there when the folder or every text is missing.
std::string read_texts(const std::string& folder, const std::string& between,
                       const std::string& flag);

/// A file's text, or those of a folder joined by newlines.
std::string read_text_or_folder(const std::string& path, const std::string& flag);

/// Behind the last sentence that ends at or before `at`; 0 where there is none.
std::size_t sentence_end(std::string_view text, std::size_t at);

}  // namespace winnow::eval
