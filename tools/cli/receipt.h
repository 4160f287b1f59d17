// What a run cost, for people.
#pragma once

#include <winnow/winnow.h>

#include <cstddef>
#include <optional>
#include <string>

namespace winnow::cli {

/// Everything that is told of a run, on the receipt and in --json.
struct RunReport {
    CacheOptions cache;  ///< with every default filled in
    CacheStats stats;
    SessionTiming timing;
    std::size_t prompt_tokens = 0;
    std::size_t generated_tokens = 0;
    std::size_t restored_tokens = 0;  ///< of the prompt, out of a file: not read again
    bool session_saved = false;
    double load_ms = 0.0;
    double decode_ms = 0.0;
    std::string text;
    std::string stop;
    std::string logits_hash;
    std::optional<double> agreement;  ///< share of tokens this run would have chosen too

    double prefill_tps() const;
    double decode_tps() const;
    double kept_mean() const;  ///< tokens per kv head, mean over layers
    /// Whether the cache holds less than was read: tokens gone, or fewer bits.
    bool lossy() const;
};

/// What `session` says after a run of `prompt_tokens` and `generated_tokens`.
RunReport make_report(const Session& session, std::size_t prompt_tokens,
                      std::size_t generated_tokens, double decode_ms);

/// "pyramidkv 512, kivi at 4 bits".
std::string describe(const CacheOptions& cache);
/// A block of aligned lines; `full` adds a column. Ends with the comparable line and, where the
/// cache is lossy, a note that says so.
std::string receipt(const RunReport& run, const RunReport* full = nullptr);
/// One line for comparing runs: tok/s, GB/s over the cache, tokens kept, bytes, logits hash.
std::string comparable_line(const RunReport& run);

}  // namespace winnow::cli
