// The scalar references of dense.h: plain loops, never deleted.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/dense.h"

namespace winnow::reference {

void multiply(const float* a, std::size_t a_stride, const float* b, std::size_t b_stride, float* c,
              std::size_t c_stride, int rows, int columns, int depth, bool accumulate) {
    for (int m = 0; m < rows; ++m) {
        for (int n = 0; n < columns; ++n) {
            double sum = accumulate ? c[m * c_stride + n] : 0.0;
            for (int k = 0; k < depth; ++k) {
                sum += static_cast<double>(a[m * a_stride + k]) * b[k * b_stride + n];
            }
            c[m * c_stride + n] = static_cast<float>(sum);
        }
    }
}

float max_of(const float* x, int n) {
    float best = -std::numeric_limits<float>::infinity();
    for (int i = 0; i < n; ++i) {
        best = std::max(best, x[i]);
    }
    return best;
}

float exp_and_sum(float* x, int n, float subtract) {
    double sum = 0.0;
    for (int i = 0; i < n; ++i) {
        x[i] = std::exp(x[i] - subtract);
        sum += x[i];
    }
    return static_cast<float>(sum);
}

void widen(const f16* from, float* to, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        to[i] = f16_to_f32(from[i]);
    }
}

void narrow(const float* from, f16* to, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        to[i] = f32_to_f16(from[i]);
    }
}

void widen_transposed(const f16* from, int tokens, int head_dim, float* to, int padded) {
    for (int d = 0; d < head_dim; ++d) {
        for (int t = 0; t < padded; ++t) {
            const std::size_t at = static_cast<std::size_t>(t) * head_dim + d;
            to[static_cast<std::size_t>(d) * padded + t] = t < tokens ? f16_to_f32(from[at]) : 0.0F;
        }
    }
}

}  // namespace winnow::reference
