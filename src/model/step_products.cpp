#include "model/step_products.h"

#include <algorithm>

#include "kernels/row_products.h"
#include "model/weights.h"

namespace winnow {

namespace {

constexpr int kShareRows = 8;  // threads' shares of a matrix are multiples of it

bool pays(ggml_type type) {
    const auto code = code_type(type);
    return code && has_row_products(*code) && code_products_pay();
}

}  // namespace

StepProducts::StepProducts(const WeightStore& weights, int threads, int tokens, MemoryMeter* meter)
    : weights_(&weights), tokens_(tokens) {
    for (const ggml_tensor* matrix : weights.matrices()) {
        if (pays(matrix->type)) {
            rounded_floats_ =
                std::max(rounded_floats_, rounded_floats(static_cast<int>(matrix->ne[0])) *
                                              static_cast<std::size_t>(tokens));
        }
    }
    rounded_ = Buffer<float>(meter, rounded_floats_ * static_cast<std::size_t>(threads),
                             "a step's activations");
}

ggml_tensor* StepProducts::multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x) {
    const ProductJob job = product_job(this, *weights_, weight);
    if (job.data == nullptr || !pays(job.type) || x->ne[1] > tokens_) {
        return nullptr;
    }
    jobs_.push_back(job);
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], x->ne[1], 1, 1, &x, 1, run,
                          GGML_N_TASKS_MAX, &jobs_.back());
}

// Every thread rounds the activations for itself: less than waiting for each other would cost.
void StepProducts::run(ggml_tensor* out, int thread, int threads, void* userdata) {
    const ProductJob& job = *static_cast<const ProductJob*>(userdata);
    auto& self = *static_cast<StepProducts*>(job.owner);
    const ggml_tensor* x = out->src[0];
    const int shares = (job.rows + kShareRows - 1) / kShareRows;
    const int first = std::min(job.rows, shares * thread / threads * kShareRows);
    const int end = std::min(job.rows, shares * (thread + 1) / threads * kShareRows);
    if (first == end) {
        return;
    }
    const int tokens = static_cast<int>(x->ne[1]);
    float* rounded = self.rounded_.data() + self.rounded_floats_ * static_cast<std::size_t>(thread);
    const StoredCodes codes = job.codes();
    for (int t = 0; t < tokens; ++t) {
        const auto* row = reinterpret_cast<const float*>(static_cast<const char*>(x->data) +
                                                         static_cast<std::size_t>(t) * x->nb[1]);
        round_for_rows(codes.type, row, job.columns, rounded + t * rounded_floats(job.columns));
    }
    multiply_rows(codes, first, end - first, rounded, tokens, static_cast<float*>(out->data),
                  out->nb[1] / sizeof(float));
}

}  // namespace winnow
