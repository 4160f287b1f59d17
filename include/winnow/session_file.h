// What a saved session holds, told without its model.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace winnow {

struct SessionFileInfo {
    int format_version = 0;
    std::string winnow;  ///< the version that wrote it
    std::string model_name, model_architecture, model_sha256;
    CacheOptions cache;  ///< with every default filled in
    std::uint64_t file_bytes = 0;
    std::vector<std::int32_t> tokens;        ///< all that were seen
    std::vector<std::pair<int, int>> pins;   ///< positions [first, last)
    std::vector<double> kept;                ///< [L] mean tokens per kv head
    std::uint64_t bytes = 0;                 ///< of the cache
    std::uint64_t policy_bytes = 0;          ///< of what the method remembers
    std::vector<PrecisionStats> precisions;  ///< most bits first
    std::string
        damage;  ///< "", or a sentence about what cannot be used; counts are then of the rest
};

/// Reads and checks a file of Session::save. Throws a failure Error where it is none, is of another
/// version, or its head is damaged.
WINNOW_API SessionFileInfo read_session_info(const std::string& path);

}  // namespace winnow
