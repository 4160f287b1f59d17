// Matrix products of a few tokens: decode steps and short prompts.
#pragma once

#include "model/products.h"

namespace winnow {

/// Products of up to `tokens` tokens with 16-bit activations, one pass over the weights' blocks.
/// Results are the same for any thread count, and a token's for any company. Types where ggml's own
/// product is faster are left to it.
class StepProducts final : public Products {
  public:
    /// Scratch for `threads` threads, a step's activations each, counted by `meter`.
    StepProducts(const WeightStore& weights, int threads, int tokens, MemoryMeter* meter);
    ggml_tensor* multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x) override;

  private:
    static void run(ggml_tensor* out, int thread, int threads, void* userdata);

    const WeightStore* weights_;
    int tokens_;
    std::deque<ProductJob> jobs_;
    Buffer<float> rounded_;  // [threads][tokens] activations of an operation
    std::size_t rounded_floats_ = 0;
};

}  // namespace winnow
