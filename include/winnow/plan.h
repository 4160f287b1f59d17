// What a cache would hold, told from a model's header alone.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <string>
#include <vector>

namespace winnow {

/// One precision that a plan may store tokens at, and what a token of one kv head takes there:
/// codes, scales, position and running sum.
struct PlannedTier {
    int bits_k = 16;
    int bits_v = 16;
    double token_bytes = 0.0;
};

struct PlannedLayer {
    std::uint64_t bytes = 0;  ///< the most the layer takes at any moment of decode
    std::uint64_t fixed = 0;  ///< of these fitted data, rings and notes
    int tokens = 0;           ///< per kv head; for `mixed` about, at its middle precision
    int tokens_exact = 0;     ///< `mixed`: if all of them stayed at 16 bits
    int tokens_most = 0;      ///< `mixed`: if all of them went to the fewest bits
};

struct CachePlan {
    CacheOptions cache;  ///< with what was planned filled in
    std::string name, architecture;
    int context = 0;                   ///< tokens of the prompt
    std::uint64_t bytes = 0;           ///< of all layers
    std::uint64_t full_bytes = 0;      ///< a full f16 cache of the prompt
    std::uint64_t prefill_peak = 0;    ///< about: cache, one layer's K and V, hidden states, chunk
    std::vector<PlannedTier> tiers;    ///< most bits first
    std::vector<PlannedLayer> layers;  ///< [L]
};

/// Plans a cache for a prompt of `context` tokens; reads the GGUF's header and no weights. Throws
/// as Model::load and Session do. Without kv_budget the plan is of the cap as it is given.
WINNOW_API CachePlan plan_cache(const std::string& path, const CacheOptions& cache, int context);

/// `cache` with the largest cap whose cache of a prompt of `tokens` tokens, right after its
/// prefill, takes at most `bytes`: codes, scales, positions, the f16 tail as far as it is filled,
/// rings and sums. Unlike kv_budget it leaves no room for an answer and lets it grow: for comparing
/// methods. For `mixed` it sets kv_budget. Throws a usage Error naming the smallest where nothing
/// fits.
WINNOW_API CacheOptions plan_equal_bytes(const Model& model, const CacheOptions& cache, int tokens,
                                         std::uint64_t bytes);

/// Bytes written as "24MiB", "1.5 GB" or "65536"; throws a usage Error that names `flag`.
WINNOW_API std::uint64_t parse_byte_count(const std::string& flag, const std::string& text);

}  // namespace winnow
