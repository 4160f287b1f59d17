#include "model/products.h"

#include <algorithm>

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

int panel_rows(int columns) {
    return std::max(kMinPanelRows, static_cast<int>(kPanelFloats / columns) / 16 * 16);
}

}  // namespace

Products::Products(const WeightStore& weights, int threads, MemoryMeter* meter)
    : weights_(&weights) {
    for (const ggml_tensor* matrix : weights.matrices()) {
        const int columns = static_cast<int>(matrix->ne[0]);
        panel_floats_ =
            std::max(panel_floats_, static_cast<std::size_t>(panel_rows(columns)) * columns);
    }
    panels_ = Buffer<float>(meter, panel_floats_ * threads, "panels of weights");
}

ggml_tensor* Products::multiply(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* x) {
#ifdef WINNOW_BLAS
    const void* data = weights_->plain_data(weight);
    const bool widens =
        weight->type == GGML_TYPE_F32 || ggml_get_type_traits(weight->type)->to_float != nullptr;
    if (data == nullptr || !widens) {
        return nullptr;
    }
    jobs_.push_back({.owner = this,
                     .type = weight->type,
                     .data = data,
                     .rows = static_cast<int>(weight->ne[1]),
                     .columns = static_cast<int>(weight->ne[0])});
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], x->ne[1], 1, 1, &x, 1, run,
                          GGML_N_TASKS_MAX, &jobs_.back());
#else
    (void)ctx, (void)weight, (void)x;
    return nullptr;
#endif
}

void Products::run(ggml_tensor* out, int thread, int threads, void* userdata) {
#ifdef WINNOW_BLAS
    const Job& job = *static_cast<const Job*>(userdata);
    const OneThread here;
    const ggml_tensor* x = out->src[0];
    const int tokens = static_cast<int>(x->ne[1]);
    const int step = panel_rows(job.columns);
    const std::size_t row_bytes = ggml_row_size(job.type, job.columns);
    // ggml may run with fewer threads than asked for, never with more than the scratch is for.
    float* panel = const_cast<float*>(job.owner->panels_.data()) +
                   job.owner->panel_floats_ * static_cast<std::size_t>(thread);
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
