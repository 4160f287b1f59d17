// How far a compressed cache's predictions are from the full cache's, over forced tokens.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <span>
#include <vector>

namespace winnow::eval {

struct Fidelity {
    double kl_mean = 0.0, kl_p99 = 0.0;  ///< KL(full || this), nats per token
    double top1 = 0.0;                   ///< share of tokens whose likeliest successor agrees
    double ppl = 0.0, ppl_full = 0.0;    ///< perplexity of the text that follows
    int tokens = 0;
};

/// Adds up what a cache's logits are beside the full cache's.
class FidelityMeter {
  public:
    /// `tokens` are forced, `full` [n][V] is the full cache's; both must outlive the meter.
    FidelityMeter(std::span<const std::int32_t> tokens, std::span<const float> full)
        : tokens_(tokens), full_(full) {}
    /// The logits [V] after token i.
    void add(int i, std::span<const float> logits);
    Fidelity result() const;

  private:
    std::span<const std::int32_t> tokens_;
    std::span<const float> full_;
    std::vector<double> kl_;
    double surprise_ = 0.0, surprise_full_ = 0.0;
    int same_ = 0;
};

/// How forced tokens go through a cache.
enum class Forcing {
    chunk,   ///< as one chunk that stays f16 and is left out of the cache
    decode,  ///< one by one into the cache, which packs and evicts as it does in an answer
};

/// Logits [n][V] after each of `tokens` but the last, which is the last one's successor.
std::vector<float> forced_logits(Session& session, std::span<const std::int32_t> tokens,
                                 Forcing forcing);

/// Compares with the full cache's logits as they come, so that only those are held.
Fidelity measure_fidelity(Session& session, std::span<const std::int32_t> tokens,
                          std::span<const float> full, Forcing forcing);

}  // namespace winnow::eval
