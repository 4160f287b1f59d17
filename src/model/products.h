// Large matrix products of prefill, as operations inside the model's graphs. Weights of common
// types are multiplied as 16-bit integers where the processor has an instruction for it; others are
// widened to f32 panel by panel and multiplied by a BLAS.
#pragma once

#include <ggml.h>

#include <deque>
#include <optional>

#include "core/memory.h"
#include "kernels/code_products.h"

namespace winnow {

class WeightStore;

/// Products that take the place of ggml's in a graph. Must outlive the graphs built with it.
class Products {
  public:
    virtual ~Products() = default;
    /// x W^T as a graph operation: weight [rows][columns], x [n][columns], gives [n][rows].
    /// Null: ggml's own product does it.
    virtual ggml_tensor* multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x) = 0;
};

/// A matrix that an operation multiplies with.
struct ProductJob {
    Products* owner;
    ggml_type type;
    const void* data;  // rows as stored in the file
    int rows, columns;

    StoredCodes codes() const;
};
/// The job of `weight`; data is null where its rows cannot be read as the file stores them.
ProductJob product_job(Products* owner, const WeightStore& weights, const ggml_tensor* weight);

/// How the integer products read a type, where they do.
std::optional<CodeType> code_type(ggml_type type);

/// Prompts of this many tokens and more use it; below, widening the weights would cost more than
/// ggml's products on quantised activations. A rule on the prompt, not on the chunk, so that
/// results do not depend on the chunk size.
inline constexpr int kProductTokens = 32;

/// One prefill's products. Panels are handed out in a fixed pattern and each is one thread's work,
/// so results are the same for any thread count.
class PromptProducts final : public Products {
  public:
    /// Scratch for `threads` threads, a panel each, counted by `meter`.
    PromptProducts(const WeightStore& weights, int threads, MemoryMeter* meter);
    ggml_tensor* multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x) override;

  private:
    static void run_codes(ggml_tensor* out, int thread, int threads, void* userdata);
    static void run_floats(ggml_tensor* out, int thread, int threads, void* userdata);
    float* panel(int thread) const;

    const WeightStore* weights_;
    std::deque<ProductJob> jobs_;
    Buffer<float> panels_;
    std::size_t panel_floats_ = 0;
};

}  // namespace winnow
