// The largest attention a key has received, where a policy asks for that instead of the sum.
#pragma once

#include <algorithm>

namespace winnow {

/// peaks = max(peaks, factor * x)
inline void raise_to(float* peaks, const float* x, int n, float factor) {
    for (int i = 0; i < n; ++i) {
        peaks[i] = std::max(peaks[i], factor * x[i]);
    }
}

}  // namespace winnow
