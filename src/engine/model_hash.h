// The sha256 of model files, and the folder where it is remembered.
#pragma once

#include <filesystem>
#include <string>

#include "gguf/precheck.h"

namespace winnow {

/// $XDG_CACHE_HOME/winnow or ~/.cache/winnow; empty without a home.
std::filesystem::path cache_folder();

/// The sum of a file, 64 hex digits, remembered by path, size and time.
std::string file_sha256(const std::string& path, const gguf::File& file);

}  // namespace winnow
