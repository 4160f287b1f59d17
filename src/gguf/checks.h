// The parts of the check behind File; internal to src/gguf.
#pragma once

#include <winnow/error.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gguf/precheck.h"

namespace winnow::gguf {

/// The name or path as it stands in an error: control bytes replaced, cut to its last 160 bytes.
std::string shown_path(std::string_view path);

/// `'text'` with control bytes replaced, cut to 64 bytes: a hostile name cannot break the line.
std::string quoted(std::string_view text);

/// An Error about the file `path`.
Error file_error(std::string_view path, std::string_view sentence);

/// Reads header, metadata and tensor directory. Views in the result point into `head`.
Directory read_directory(std::span<const std::byte> head, std::uint64_t file_bytes,
                         const std::string& path);

/// Token texts, scores, types, merges and special ids fit together.
void check_vocabulary(const File& file);

/// Every chat template is of bounded length and nesting.
void check_chat_templates(const File& file);

/// What is wrong with the nesting of a Jinja template, or "" when it is bounded.
std::string template_problem(std::string_view text);

}  // namespace winnow::gguf
