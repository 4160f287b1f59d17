// The measuring loop of `winnow bench`.
#pragma once

#include <winnow/winnow.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/rival.h"

namespace winnow::bench {

/// From this context on, a prompt is read once per engine and decode repeated from its end.
constexpr int kLongContext = 8000;
/// Untimed steps before the timed ones.
constexpr int kWarmSteps = 1;

struct Settings {
    std::vector<CacheOptions> caches;       ///< one per configuration
    std::vector<int> contexts;              ///< prompt lengths
    std::vector<int> sessions{1};           ///< sessions decoded in one step
    std::vector<std::string> rival_caches;  ///< the rival's; empty without one
    int repeats = 3;
    int decode_tokens = 32;
    SessionOptions session;

    /// Tokens the longest run reads.
    int tokens_needed() const;
};

/// Repeats of one figure.
struct Samples {
    std::vector<double> values;
    double median() const;  ///< 0 for none
    double spread() const;  ///< (largest - smallest) / median
};

/// One configuration at one context and number of sessions.
struct Result {
    std::string engine;  ///< "winnow" or the rival's name
    std::string method, quant_method;
    int nbits = 16;
    int nbits_k = 16, nbits_v = 16;
    int max_capacity_prompts = 0;  ///< 0: all kept
    int context = 0;
    int sessions = 1;
    Samples decode_tps;  ///< of all sessions together
    Samples prefill_tps;
    std::uint64_t kv_bytes = 0;                         ///< of all sessions, after the prefill
    std::optional<double> attention_ms, weights_ms;     ///< medians, per token
    std::optional<double> compress_share;               ///< of the prefill
    std::optional<double> ratio_decode, ratio_prefill;  ///< to the rival's f16 cache
    std::optional<double> ratio_sessions;  ///< of several sessions to one, in decode_tps

    /// Milliseconds per decoded token.
    double token_ms() const;
    /// Cache bytes read per second of attention; nothing where the time is unknown.
    std::optional<double> kv_gb_per_s() const;
    /// "winnow snapkv 1024, kivi 4 bits" or "llama.cpp f16".
    std::string label() const;
};

using ProgressLine = std::function<void(const std::string&)>;

/// Measures every configuration at every context: the engines take turns within each repeat. Reads
/// `tokens` from the beginning; they hold at least settings.tokens_needed(). `rival` may be null.
std::vector<Result> measure(const std::shared_ptr<const Model>& model, const Rival* rival,
                            const Settings& settings, std::span<const std::int32_t> tokens,
                            const ProgressLine& progress);

}  // namespace winnow::bench
