// What the storage formats compute, written again from the formulas in double precision and
// without a byte of layout: the tests' definition of right.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace winnow::reference {

using Rows = std::vector<double>;  // [tokens][D]

/// The nearest half-precision number, ties to even; finite input within +-65504.
inline double half(double x) {
    if (x == 0.0) return 0.0;
    int exponent = 0;
    std::frexp(x, &exponent);  // |x| in [2^(e-1), 2^e)
    const double step = std::ldexp(1.0, std::max(exponent - 11, -24));
    return std::nearbyint(x / step) * step;
}

/// A quotient as the cache computes it before it is rounded to half: in float.
inline double float_quotient(double a, double b) {
    return static_cast<double>(static_cast<float>(a) / static_cast<float>(b));
}

inline double clamp_half(double x) {
    return std::clamp(x, -65504.0, 65504.0);
}

/// One affine group, x' = code * s + z.
inline std::vector<double> affine_group(const std::vector<double>& x, int bits) {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double top = std::exp2(bits) - 1.0;
    const double s = half(float_quotient(*high - *low, top)), z = half(*low);
    std::vector<double> out;
    for (const double value : x) {
        const double code = s == 0.0 ? 0.0 : std::clamp(std::round((value - z) / s), 0.0, top);
        out.push_back(code * s + z);
    }
    return out;
}

/// The bound on affine_group's error: half a step, and what the rounding of s and z costs.
inline double affine_bound(const std::vector<double>& x, int bits) {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double top = std::exp2(bits) - 1.0;
    const double step = (*high - *low) / top;
    const double s = half(step), z = half(*low);
    return s / 2.0 + std::fabs(step - s) * top + std::fabs(z - *low);
}

/// One HQQ group, x' = (code - zero) * s, with the solver's steps.
inline std::vector<double> hqq_group(const std::vector<double>& x, int bits) {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const double top = std::exp2(bits) - 1.0, n = static_cast<double>(x.size());
    const double largest = std::max(std::fabs(*low), std::fabs(*high));
    const double s =
        half(std::max(float_quotient(*high - *low, top), float_quotient(largest, 30000.0)));
    if (*low == *high || s == 0.0) return std::vector<double>(x.size(), half((*low + *high) / 2.0));
    const auto restore = [&](double zero) {
        std::vector<double> out;
        for (const double value : x) {
            out.push_back((std::clamp(std::round(value / s + zero), 0.0, top) - zero) * s);
        }
        return out;
    };
    const auto error = [&](const std::vector<double>& y) {
        double sum = 0.0;
        for (std::size_t i = 0; i < x.size(); ++i) sum += std::fabs(x[i] - y[i]);
        return sum / n;
    };
    double zero = half(-*low / s), beta = 10.0;
    std::vector<double> best = restore(zero);
    for (int step = 0; step < 20; ++step, beta *= 1.01) {
        const std::vector<double> y = restore(zero);
        double sum = 0.0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double e = x[i] - y[i], size = std::fabs(e);
            const double kept =
                size == 0.0 ? 0.0 : std::max(size - std::pow(size, -0.3) / beta, 0.0);
            sum += y[i] / s + zero - (x[i] - std::copysign(kept, e)) / s;
        }
        zero = half(sum / n);
        const std::vector<double> next = restore(zero);
        if (!(error(next) < error(best))) break;
        best = next;
    }
    return best;
}

/// One KVQuant vector with the given levels; `exact` gets the places restored exactly.
inline std::vector<double> kvquant_vector(const std::vector<double>& x, const float* levels,
                                          int bits, double threshold,
                                          std::vector<std::size_t>* exact = nullptr) {
    std::vector<std::size_t> order(x.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return std::fabs(x[a]) > std::fabs(x[b]);
    });
    order.resize((x.size() + 99) / 100);
    if (threshold > 0.0) {
        std::erase_if(order, [&](std::size_t i) { return std::fabs(x[i]) <= threshold; });
    }
    const auto outlier = [&](std::size_t i) {
        return std::find(order.begin(), order.end(), i) != order.end();
    };
    double low = 65504.0, high = -65504.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (outlier(i)) continue;
        low = std::min(low, x[i]);
        high = std::max(high, x[i]);
    }
    const double offset = half((low + high) / 2.0), scale = half((high - low) / 2.0);
    std::vector<double> out;
    for (std::size_t i = 0; i < x.size(); ++i) {
        double best = levels[0];
        const double wanted = scale == 0.0 ? 0.0 : (x[i] - offset) / scale;
        for (int c = 0; c < 1 << bits; ++c) {
            if (std::fabs(levels[c] - wanted) < std::fabs(best - wanted)) best = levels[c];
        }
        out.push_back(outlier(i) ? half(x[i]) : offset + scale * best);
    }
    if (exact != nullptr) *exact = order;
    return out;
}

/// Applies `restore` (vector to vector) to groups of `length` along an axis: 0 runs over tokens,
/// 1 over channels.
template <typename Restore>
Rows by_groups(const std::vector<float>& rows, int tokens, int d, int axis, int length,
               Restore restore) {
    Rows out(rows.size());
    const int outer = axis == 0 ? d : tokens, inner = axis == 0 ? tokens : d;
    const auto at = [&](int o, int i) {
        return static_cast<std::size_t>(axis == 0 ? i * d + o : o * d + i);
    };
    for (int o = 0; o < outer; ++o) {
        for (int first = 0; first < inner; first += length) {
            std::vector<double> x;
            for (int i = 0; i < length; ++i) {
                x.push_back(clamp_half(static_cast<double>(rows[at(o, first + i)])));
            }
            const std::vector<double> y = restore(x);
            for (int i = 0; i < length; ++i) out[at(o, first + i)] = y[static_cast<std::size_t>(i)];
        }
    }
    return out;
}

/// Test data, [tokens][D]. The kinds are listed in kKinds.
inline const std::vector<std::string> kKinds{"normal", "constant",   "huge",           "tiny",
                                             "mixed",  "infinities", "large channels", "offset"};

inline std::vector<float> make_rows(const std::string& kind, int tokens, int d, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> rows(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(d));
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t t = i / static_cast<std::size_t>(d), c = i % static_cast<std::size_t>(d);
        float x = normal(random);
        if (kind == "constant") x = 1.2345F;
        if (kind == "huge") x *= 60000.0F;
        if (kind == "tiny") x *= c % 2 == 0 ? 1e-7F : 1e-30F;
        if (kind == "mixed") x *= std::pow(10.0F, static_cast<float>((t + c) % 7) - 4.0F);
        if (kind == "infinities" && (t * 7 + c) % 11 == 0) x = (c % 2 == 0 ? 1.0F : -1.0F) / 0.0F;
        if (kind == "large channels" && c % 8 == 3) x = 100.0F * (c % 16 == 3 ? 1.0F : -1.0F) + x;
        if (kind == "offset") x = 300.0F + 0.01F * x;
        rows[i] = x;
    }
    return rows;
}

}  // namespace winnow::reference
