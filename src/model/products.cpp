#include "model/products.h"

#include <algorithm>
#include <optional>

#include "kernels/code_products.h"
#include "model/weights.h"

#ifdef WINNOW_BLAS
#include <cblas.h>
#endif
#ifdef WINNOW_OPENMP
#include <omp.h>
#endif

namespace winnow {

namespace {

constexpr int kMinPanelRows = 64;
constexpr std::size_t kPanelFloats = std::size_t{1} << 18;  // 1 MiB: stays in the second cache

// Keeps a BLAS that threads by OpenMP on the calling thread, also where ggml runs on one only.
class OneThread {
  public:
#ifdef WINNOW_OPENMP
    OneThread() : before_(omp_get_max_threads()) {
        omp_set_num_threads(1);
    }
    ~OneThread() {
        omp_set_num_threads(before_);
    }

  private:
    int before_;
#endif
};

void round_rows(ggml_tensor* out, int thread, int threads, void* /*userdata*/) {
    const ggml_tensor* x = out->src[0];
    for (int64_t t = thread; t < x->ne[1]; t += threads) {
        const auto* row = reinterpret_cast<const float*>(static_cast<const char*>(x->data) +
                                                         static_cast<std::size_t>(t) * x->nb[1]);
        round_activations(row, static_cast<int>(x->ne[0]),
                          static_cast<float*>(out->data) + t * out->ne[0]);
    }
}

int panel_rows(int columns) {
    return std::max(kMinPanelRows, static_cast<int>(kPanelFloats / columns) / 16 * 16);
}

}  // namespace

// Types that are multiplied as 16-bit integers where that pays: one thread of an EPYC does 83 to 94
// G multiply-adds/s on them, widening included, where floats cannot pass 57.
std::optional<CodeType> code_type(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return CodeType::q4_0;
        case GGML_TYPE_Q4_1:
            return CodeType::q4_1;
        case GGML_TYPE_Q5_0:
            return CodeType::q5_0;
        case GGML_TYPE_Q8_0:
            return CodeType::q8_0;
        case GGML_TYPE_Q4_K:
            return CodeType::q4_k;
        case GGML_TYPE_Q6_K:
            return CodeType::q6_k;
        default:
            return std::nullopt;
    }
}

StoredCodes ProductJob::codes() const {
    return {.type = *code_type(type),
            .data = static_cast<const std::uint8_t*>(data),
            .row_bytes = ggml_row_size(type, columns),
            .columns = columns};
}

ProductJob product_job(Products* owner, const WeightStore& weights, const ggml_tensor* weight) {
    return {.owner = owner,
            .type = weight->type,
            .data = weights.plain_data(weight),
            .rows = static_cast<int>(weight->ne[1]),
            .columns = static_cast<int>(weight->ne[0])};
}

PromptProducts::PromptProducts(const WeightStore& weights, int threads, MemoryMeter* meter)
    : weights_(&weights) {
    for (const ggml_tensor* matrix : weights.matrices()) {
        const int columns = static_cast<int>(matrix->ne[0]);
        panel_floats_ =
            std::max(panel_floats_, static_cast<std::size_t>(panel_rows(columns)) * columns);
    }
    panels_ = Buffer<float>(meter, panel_floats_ * threads, "panels of weights");
}

ggml_tensor* PromptProducts::multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x) {
    const ProductJob job = product_job(this, *weights_, weight);
    if (job.data == nullptr) {
        return nullptr;
    }
    const auto add = [&](ggml_tensor* input, ggml_custom_op_t op) {
        jobs_.push_back(job);
        return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], x->ne[1], 1, 1, &input, 1, op,
                              GGML_N_TASKS_MAX, &jobs_.back());
    };
    if (code_type(job.type) && code_products_pay() && job.rows % strip_rows() == 0) {
        const auto floats = static_cast<int64_t>(rounded_floats(job.columns));
        return add(ggml_custom_4d(ctx, GGML_TYPE_F32, floats, x->ne[1], 1, 1, &x, 1, round_rows,
                                  GGML_N_TASKS_MAX, nullptr),
                   run_codes);
    }
#ifdef WINNOW_BLAS
    if (job.type == GGML_TYPE_F32 || ggml_get_type_traits(job.type)->to_float != nullptr) {
        return add(x, run_floats);
    }
#endif
    return nullptr;
}

float* PromptProducts::panel(int thread) const {
    // ggml may run with fewer threads than asked for, never with more than the scratch is for.
    return const_cast<float*>(panels_.data()) + panel_floats_ * static_cast<std::size_t>(thread);
}

void PromptProducts::run_codes(ggml_tensor* out, int thread, int threads, void* userdata) {
    const ProductJob& job = *static_cast<const ProductJob*>(userdata);
    const ggml_tensor* rounded = out->src[0];
    const StoredCodes codes = job.codes();
    auto* scratch =
        reinterpret_cast<std::uint8_t*>(static_cast<PromptProducts*>(job.owner)->panel(thread));
    const int step = strip_rows();  // less than a panel of floats: see panel_rows
    for (int first = thread * step; first < job.rows; first += threads * step) {
        multiply_strip(codes, first, static_cast<const float*>(rounded->data),
                       static_cast<int>(rounded->ne[1]), scratch,
                       static_cast<float*>(out->data) + first, out->nb[1] / sizeof(float));
    }
}

void PromptProducts::run_floats(ggml_tensor* out, int thread, int threads, void* userdata) {
#ifdef WINNOW_BLAS
    const ProductJob& job = *static_cast<const ProductJob*>(userdata);
    const OneThread here;
    const ggml_tensor* x = out->src[0];
    const int tokens = static_cast<int>(x->ne[1]);
    const int step = panel_rows(job.columns);
    const std::size_t row_bytes = ggml_row_size(job.type, job.columns);
    float* panel = static_cast<PromptProducts*>(job.owner)->panel(thread);
    for (int first = thread * step; first < job.rows; first += threads * step) {
        const int rows = std::min(step, job.rows - first);
        const auto* stored = static_cast<const std::uint8_t*>(job.data) + first * row_bytes;
        const float* widened = panel;
        if (job.type == GGML_TYPE_F32) {
            widened = reinterpret_cast<const float*>(stored);
        } else {
            ggml_get_type_traits(job.type)->to_float(stored, panel,
                                                     static_cast<int64_t>(rows) * job.columns);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tokens, rows, job.columns, 1.0F,
                    static_cast<const float*>(x->data), static_cast<int>(x->nb[1] / sizeof(float)),
                    widened, job.columns, 0.0F, static_cast<float*>(out->data) + first,
                    static_cast<int>(out->nb[1] / sizeof(float)));
    }
#else
    (void)out, (void)thread, (void)threads, (void)userdata;
#endif
}

}  // namespace winnow
