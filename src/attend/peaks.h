// The largest attention a key has received, where a policy asks for that instead of the sum.
#pragma once

#include <algorithm>
#include <cmath>

namespace winnow {

/// peaks = max(peaks, factor * x)
inline void raise_to(float* peaks, const float* x, int n, float factor) {
    for (int i = 0; i < n; ++i) {
        peaks[i] = std::max(peaks[i], factor * x[i]);
    }
}

/// 1 / |x|, or 0 for x = 0.
inline float inverse_length(const float* x, int n) {
    double squares = 0.0;
    for (int i = 0; i < n; ++i) {
        squares += static_cast<double>(x[i]) * x[i];
    }
    return squares > 0.0 ? static_cast<float>(1.0 / std::sqrt(squares)) : 0.0F;
}

}  // namespace winnow
