// Draws the next token from logits, through libllama's samplers.
#pragma once

#include <winnow/sampling.h>

#include <cstdint>
#include <memory>
#include <span>

namespace winnow {

class Vocab;

/// One per answer in progress; not thread-safe. Keeps what it needs of the vocabulary alive.
class TokenSampler {
  public:
    /// vocab_size is the number of logits of one token, V. Throws Error (usage) naming the flag of
    /// an option that is out of range, of a bad grammar (--grammar) or schema (--json-schema).
    TokenSampler(const Vocab& vocab, const SamplingOptions& options, int vocab_size);
    ~TokenSampler();
    TokenSampler(TokenSampler&&) noexcept;
    TokenSampler& operator=(TokenSampler&&) noexcept;

    /// Draws from logits [V]; NaN counts as -inf. Changes nothing but the random state: call
    /// accept() with the token that is really taken. Throws Error (failure) if no token is
    /// possible.
    int32_t sample(std::span<const float> logits);

    /// Records a token for the penalties and, if the model generated it, for the grammar. Throws
    /// Error (failure) for an id that is not in [0, V) or that the grammar refuses.
    void accept(int32_t token, bool generated = true);

    /// Back to the state after construction: same seed, nothing accepted.
    void reset();

    /// The seed in use; a fresh one where kRandomSeed was asked for.
    uint32_t seed() const noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace winnow
