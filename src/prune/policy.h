// The contract of a pruning policy: one file in policies/ defines one `const Policy`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/f16.h"

namespace winnow {

class RopeTable;
struct Policy;
struct WholeHead;

/// How the scores of the R query heads that share a kv head become one score.
enum class GqaAgg { mean, max, sum };
enum class Pooling { max, avg };

/// A policy's settings after defaults have been filled in.
struct PolicyParams {
    int cap = 0;          ///< tokens kept per kv head of a layer, window and sinks included
    int window_size = 0;  ///< W: newest tokens that are always kept, and whose queries observe
    int n_sink = 0;       ///< oldest tokens that are always kept (policies that use sinks)
    int kernel_size = 7;  ///< width of SnapKV's pooling over positions, odd
    Pooling pooling = Pooling::max;
    int beta = 20;  ///< steepness of PyramidKV's layer budgets
    GqaAgg agg = GqaAgg::mean;
    std::uint64_t seed = 42;  ///< of the `random` policy
    /// What a selector scores by, outermost first: of `adakv:criticalkv:snapkv` the last two.
    std::vector<const Policy*> bases{};
};

/// What a policy must be given besides the number of tokens; a bit set.
enum Needs : unsigned {
    kNeedsNothing = 0,
    kNeedsWindow = 1U << 0,      ///< queries of the last W tokens, and keys
    kNeedsColumnSums = 1U << 1,  ///< attention each key received from all queries
    kNeedsKeys = 1U << 2,
    kNeedsValues = 1U << 3,
    kNeedsQueryStats = 1U << 4,  ///< mean and covariance of all queries before RoPE
    kNeedsOutput = 1U << 5,      ///< the layer's output projection
    kNeedsPeaks = 1U << 6,       ///< the largest attention each key gets as the prompt is repeated
    kNeedsPerInput = 1U << 7,    ///< peaks per query head of weight / |input of the layer|
};

/// One kv head's tokens as a policy sees them, in kept order. Views: valid during the call only.
struct HeadObservation {
    int tokens = 0;                           ///< T of this head
    int budget = 0;                           ///< tokens it may keep
    const f16* k = nullptr;                   ///< [T][D], post-RoPE; null unless needed
    const f16* v = nullptr;                   ///< [T][D]; null unless needed
    const std::int32_t* positions = nullptr;  ///< [T] true positions, ascending
    const float* column_sums = nullptr;       ///< [R][T] weights summed over queries; or their
                                              ///< peaks, [T], or [R][T] per input
};

/// A layer's queries before RoPE since the session began, its first tokens left out.
struct QueryStats {
    int count = 0;
    const float* mean = nullptr;        ///< [H][D]
    const float* covariance = nullptr;  ///< [H][D][D], divided by count
};

/// One layer's tokens as a policy sees them, after prefill or while decoding.
struct Observation {
    int layer = 0;
    int layers = 1;                          ///< L
    int query_heads = 0;                     ///< H
    int kv_heads = 0;                        ///< G
    int head_dim = 0;                        ///< D
    int window = 0;                          ///< queries held in window_queries: min(W, T)
    const float* window_queries = nullptr;   ///< [window][H][D], post-RoPE, of the newest tokens
    float scale = 0.0F;                      ///< factor on q.k, 1/sqrt(D)
    int threads = 1;                         ///< threads that score() may use
    QueryStats queries{};                    ///< where the policy needs them
    const RopeTable* rope = nullptr;         ///< how the model rotates; null in some tests
    int next_position = 0;                   ///< of the first token to come
    int embedding = 0;                       ///< E
    const float* output = nullptr;           ///< W_o, [H][D][E padded to kColumnBlock], if needed
    std::span<const HeadObservation> heads;  ///< [G]
};

/// Tokens of a span that are kept whatever their score: [0, front) and [T - back, T).
struct Protected {
    int front = 0;
    int back = 0;
};

struct Policy {
    const char* name;
    const char* paper;       ///< arXiv id, or "" for a control
    const char* summary;     ///< one line for `winnow methods`
    const char* departures;  ///< where it differs from the paper or its official code, or ""
    unsigned needs = kNeedsNothing;
    int default_window = 0;
    int default_sinks = 0;
    /// Tokens kept per kv head in `layer` of `layers` for a span of `tokens` tokens. A result of
    /// `tokens` or more keeps everything. Null: `params.cap` in every layer.
    int (*budget)(const PolicyParams& params, int layer, int layers, int tokens) = nullptr;
    Protected (*protect)(const PolicyParams& params, int budget, int tokens) = nullptr;
    /// Writes one score per token, higher is kept: scores[g][0..T_g). Null where protect() alone
    /// decides. Must give the same bits for any thread count.
    void (*score)(const Observation& seen, const PolicyParams& params,
                  std::span<float* const> scores) = nullptr;
    /// score() reads neither budgets nor params.cap and params.beta, so that sessions over one
    /// prompt that differ in these alone are scored once.
    bool scores_without_cap = false;
    /// Budgets of the G kv heads that have `budget` tokens each on average, where they differ;
    /// together G * budget. Asked again at each eviction. Null: all the same.
    void (*head_budgets)(const Observation& seen, const PolicyParams& params,
                         std::span<float* const> scores, int budget, std::span<int> out) = nullptr;
    /// Where peaks are needed: tokens that each head of all layers keeps, from `kept` to T each and
    /// at most `total` together. Null: one threshold over the scores of all heads.
    void (*share_out)(std::span<const WholeHead> heads, std::int64_t total,
                      std::span<int> budgets) = nullptr;
    /// Of a selector, which turns another policy's scores into its own: the one it takes unless
    /// `--method selector:base` names another. Null: no selector.
    const char* default_base = nullptr;
    /// While decoding the policy acts once this many new tokens have come; the cache's own slack
    /// where that is more.
    int interval = 0;
};

/// Every policy of policies/, in name order; the table is generated by CMake.
std::span<const Policy* const> policies();

/// The policy called `name`, or of `outer:inner` the outer one; throws a usage Error that offers
/// the nearest name.
const Policy& find_policy(const std::string& name);

/// The policies of `outer:inner`, outermost first and never a selector last: its default base is
/// added. Throws a usage Error where one cannot be the base of another.
std::vector<const Policy*> find_policies(const std::string& name);

/// What the first of `chain` and all its bases need together.
unsigned needs_of(std::span<const Policy* const> chain);

/// SnapKV's observation: per token the attention of the last W queries over everything they see
/// (softmax over all visible keys, the W x W block causal), summed over W per query head, pooled
/// over positions, then aggregated over the R heads. Writes scores[g][0..T_g).
void window_attention_scores(const Observation& seen, const PolicyParams& params,
                             std::span<float* const> scores);

}  // namespace winnow
