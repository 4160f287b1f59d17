#include "cache/bit_shares.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>

namespace winnow {
namespace {

using Size = std::size_t;

// Losses of bunches of channels, [bunches][kShareLevels].
std::vector<double> bunch_losses(std::span<const float> losses, const std::vector<int>& order) {
    std::vector<double> sums(order.size() / kShareBunch * kShareLevels, 0.0);
    for (Size i = 0; i < order.size(); ++i) {
        for (Size level = 0; level < kShareLevels; ++level) {
            sums[i / kShareBunch * kShareLevels + level] +=
                static_cast<double>(losses[static_cast<Size>(order[i]) * kShareLevels + level]);
        }
    }
    return sums;
}

// The level of every bunch: least[s] is the least loss of the bunches so far with s bits in sum.
std::vector<int> best_levels(const std::vector<double>& losses, int average) {
    const int bits_in_sum = average * static_cast<int>(losses.size() / kShareLevels);
    const Size bunches = losses.size() / kShareLevels, width = static_cast<Size>(bits_in_sum) + 1;
    std::vector<double> least(width, std::numeric_limits<double>::infinity());
    least[0] = 0.0;
    std::vector<int> choice(bunches * width, -1);
    for (Size bunch = 0; bunch < bunches; ++bunch) {
        std::vector<double> next(width, std::numeric_limits<double>::infinity());
        for (int level = 0; level < kShareLevels; ++level) {
            const Size bits = static_cast<Size>(kShareBits[level]);
            for (Size s = bits; s < width; ++s) {
                const double loss = least[s - bits] + losses[bunch * kShareLevels + level];
                if (loss < next[s]) {
                    next[s] = loss;
                    choice[bunch * width + s] = level;
                }
            }
        }
        least = std::move(next);
    }
    std::vector<int> levels(bunches);
    Size s = width - 1;
    for (Size bunch = bunches; bunch-- > 0;) {
        levels[bunch] = choice[bunch * width + s];
        s -= static_cast<Size>(kShareBits[levels[bunch]]);
    }
    return levels;
}

}  // namespace

std::vector<int> share_bits(std::span<const float> losses, int channels, int average) {
    std::vector<int> order(static_cast<Size>(channels));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return losses[static_cast<Size>(a) * kShareLevels + 1] <
               losses[static_cast<Size>(b) * kShareLevels + 1];
    });
    const std::vector<int> levels = best_levels(bunch_losses(losses, order), average);
    std::vector<int> bits(static_cast<Size>(channels));
    for (Size i = 0; i < order.size(); ++i) {
        bits[static_cast<Size>(order[i])] = kShareBits[levels[i / kShareBunch]];
    }
    return bits;
}

std::vector<int> share_bunches(std::span<const float> losses, int channels, int average) {
    std::vector<int> order(static_cast<Size>(channels));
    std::iota(order.begin(), order.end(), 0);
    std::vector<int> bits = best_levels(bunch_losses(losses, order), average);
    std::transform(bits.begin(), bits.end(), bits.begin(), [](int at) { return kShareBits[at]; });
    return bits;
}

}  // namespace winnow
