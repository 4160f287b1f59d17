#include "cache/codebook.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace winnow {
namespace {

constexpr int kLloydSteps = 50;

// Between the quantile and the even grid: quantiles alone leave too few levels in the tails. Levels
// belong where the cube root of the weights lies, as a step h costs weight * h^3.
std::vector<double> start_levels(const std::vector<WeightedSample>& sorted, std::size_t count) {
    std::vector<double> shares{0.0};
    for (const WeightedSample& sample : sorted) {
        shares.push_back(shares.back() + std::cbrt(static_cast<double>(sample.weight)));
    }
    if (shares.back() == 0.0) std::iota(shares.begin(), shares.end(), 0.0);
    std::vector<double> levels(count);
    const double low = sorted.front().value, high = sorted.back().value;
    for (std::size_t i = 0; i < count; ++i) {
        const double part = (static_cast<double>(i) + 0.5) / static_cast<double>(count);
        const auto after = std::upper_bound(shares.begin(), shares.end(), part * shares.back());
        const auto at = std::min<std::ptrdiff_t>(after - shares.begin(), std::ssize(sorted)) - 1;
        levels[i] = 0.5 * (static_cast<double>(sorted[static_cast<std::size_t>(at)].value) + low +
                           part * (high - low));
    }
    return levels;
}

}  // namespace

Normal normalise(const float* x, int length, int slots, float threshold) {
    int order[kMaxVector];
    std::iota(order, order + length, 0);
    std::partial_sort(order, order + slots, order + length, [x](int a, int b) {
        const float left = std::fabs(x[a]), right = std::fabs(x[b]);
        return left != right ? left > right : a < b;
    });
    Normal normal;
    while (normal.exact < slots && std::fabs(x[order[normal.exact]]) > threshold) ++normal.exact;
    std::copy(order, order + normal.exact, normal.place);
    std::sort(normal.place, normal.place + normal.exact);
    float low = kF16Max, high = -kF16Max;
    for (int i = 0, next = 0; i < length; ++i) {
        if (next < normal.exact && normal.place[next] == i) {
            ++next;
            continue;
        }
        low = std::min(low, x[i]);
        high = std::max(high, x[i]);
    }
    normal.offset = f32_to_f16(0.5F * low + 0.5F * high);
    normal.scale = f32_to_f16(0.5F * high - 0.5F * low);
    return normal;
}

void fit_codebook(std::vector<float>& samples, int bits, float* levels) {
    std::vector<WeightedSample> alike;
    alike.reserve(samples.size());
    for (const float sample : samples) alike.push_back({sample, 1.0F});
    fit_codebook(alike, bits, levels);
}

void fit_codebook(std::vector<WeightedSample>& samples, int bits, float* levels) {
    const std::size_t count = std::size_t{1} << bits;
    if (samples.empty()) samples = {{-1.0F, 1.0F}, {1.0F, 1.0F}};
    std::sort(samples.begin(), samples.end(), [](const WeightedSample& a, const WeightedSample& b) {
        return a.value != b.value ? a.value < b.value : a.weight < b.weight;
    });
    double total = 0.0;
    for (const WeightedSample& sample : samples) total += static_cast<double>(sample.weight);
    const double least = total > 0.0 ? 0.0 : 1.0;
    std::vector<double> weights(samples.size() + 1, 0.0), sums(samples.size() + 1, 0.0);
    for (std::size_t i = 0; i < samples.size(); ++i) {
        const double weight = static_cast<double>(samples[i].weight) + least;
        weights[i + 1] = weights[i] + weight;
        sums[i + 1] = sums[i] + weight * static_cast<double>(samples[i].value);
    }
    std::vector<double> centre = start_levels(samples, count);
    for (int step = 0; step < kLloydSteps; ++step) {
        bool moved = false;
        std::size_t first = 0;
        for (std::size_t i = 0; i < count; ++i) {
            std::size_t last = samples.size();
            if (i + 1 < count) {
                const double edge = 0.5 * (centre[i] + centre[i + 1]);
                const auto end = std::upper_bound(
                    samples.begin() + static_cast<std::ptrdiff_t>(first), samples.end(), edge,
                    [](double value, const WeightedSample& sample) {
                        return value < static_cast<double>(sample.value);
                    });
                last = static_cast<std::size_t>(end - samples.begin());
            }
            if (weights[last] > weights[first]) {
                const double mean = (sums[last] - sums[first]) / (weights[last] - weights[first]);
                moved = moved || mean != centre[i];
                centre[i] = mean;
            }
            first = last;
        }
        if (!moved) break;
    }
    for (std::size_t i = 0; i < count; ++i) levels[i] = round_to_f16(static_cast<float>(centre[i]));
    std::sort(levels, levels + count);
}

Nearest::Nearest(const float* levels, int bits) : count_((1 << bits) - 1), midpoint_{} {
    for (int i = 0; i < count_; ++i) midpoint_[i] = 0.5F * (levels[i] + levels[i + 1]);
}

std::uint8_t Nearest::operator()(float value) const {
    int code = 0;  // midpoints below the value, by a search without branches
    for (int step = (count_ + 1) / 2; step > 0; step /= 2) {
        code += value > midpoint_[code + step - 1] ? step : 0;
    }
    return static_cast<std::uint8_t>(code);
}

}  // namespace winnow
