// Large matrix products of prefill: weights are widened to f32 panel by panel and multiplied by a
// BLAS, as an operation inside the model's graphs.
#pragma once

#include <ggml.h>

#include <deque>

#include "core/memory.h"

namespace winnow {

class WeightStore;

/// Prompts of this many tokens and more use it; below, widening the weights would cost more than
/// ggml's products on quantised activations. A rule on the prompt, not on the chunk, so that
/// results do not depend on the chunk size.
inline constexpr int kProductTokens = 32;

/// One prefill's products. Panels are handed out in a fixed pattern and each is one
/// single-threaded BLAS call, so results are the same for any thread count. Must outlive the
/// graphs built with it.
class Products {
  public:
    /// Scratch for `threads` threads, a panel each, counted by `meter`.
    Products(const WeightStore& weights, int threads, MemoryMeter* meter);

    /// x W^T as a graph operation: weight [rows][columns], x [n][columns], gives [n][rows].
    /// Null where ggml's own product is the faster one (see products.cpp) or there is no BLAS.
    ggml_tensor* multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x);

  private:
    struct Job {
        const Products* owner;
        ggml_type type;
        const void* data;  // rows as stored in the file
        int rows, columns;
    };
    static void run(ggml_tensor* out, int thread, int threads, void* userdata);

    const WeightStore* weights_;
    std::deque<Job> jobs_;
    Buffer<float> panels_;
    std::size_t panel_floats_ = 0;
};

}  // namespace winnow
