// libllama on the same file and tokens: the judge of exactness. Its logs are dropped.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace winnow::testing {

/// How libllama keeps K and V, and what it multiplies them by.
enum class ReferenceCache {
    f16,      ///< f16; its products round the query and the softmax weights to f16 as well
    f32,      ///< float32 throughout
    rounded,  ///< values rounded to f16 as ours are, products in float32 as ours are
};

/// Reads tokens in chunks of 512, flash attention off. Throws std::runtime_error.
class ReferenceLlama {
  public:
    ReferenceLlama(const std::string& path, int context, int threads,
                   ReferenceCache cache = ReferenceCache::f16);
    ~ReferenceLlama();

    /// Forgets what was read; `tokens` must outlive the calls of logits(), which may ask for those
    /// after token `first` and later ones.
    void start(std::span<const std::int32_t> tokens, int first = 0);
    /// Logits [V] after token i; valid until the next call. Reads on as far as i, so ask in
    /// ascending order.
    std::span<const float> logits(int i);
    /// Forgets the tokens from place i on and reads `token` there: the logits after it.
    std::span<const float> read_at(int i, std::int32_t token);
    /// The text's tokens, special ones parsed, nothing added.
    std::vector<std::int32_t> tokenize(const std::string& text) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// How close two models' next-token distributions are, over any number of positions.
class Agreement {
  public:
    void add(std::span<const float> reference, std::span<const float> found);
    int positions() const { return positions_; }
    double mean_kl() const { return kl_ / positions_; }  ///< KL(reference || found), nats
    double worst_kl() const { return worst_; }
    double top1() const { return static_cast<double>(same_) / positions_; }

  private:
    int positions_ = 0;
    int same_ = 0;
    double kl_ = 0.0;
    double worst_ = 0.0;
};

}  // namespace winnow::testing
