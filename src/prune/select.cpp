#include "prune/select.h"

#include <winnow/error.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <string>

namespace winnow {

namespace {

// Unsigned numbers in the order of the floats, equal where the floats are; NaN is the least.
std::uint32_t rank_of(float score) {
    if (score != score) {
        return 0;
    }
    const auto bits = std::bit_cast<std::uint32_t>(score);
    if (bits == 0x80000000U) {  // -0 ties with +0
        return 0x80000000U;
    }
    return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// The `count` best of [begin, end), ascending. Rank and index make one number, so that all are
// distinct and the result does not depend on how nth_element goes about it.
void append_best(std::span<const float> scores, int begin, int end, int count,
                 std::vector<std::int32_t>& kept) {
    std::vector<std::uint64_t> keys;
    keys.reserve(end - begin);
    for (int token = begin; token < end; ++token) {
        keys.push_back(std::uint64_t{rank_of(scores[token])} << 32 |
                       ~static_cast<std::uint32_t>(token));
    }
    if (count < end - begin) {
        std::nth_element(keys.begin(), keys.begin() + count, keys.end(), std::greater<>());
    }
    const std::size_t first = kept.size();
    for (int i = 0; i < count; ++i) {
        kept.push_back(static_cast<std::int32_t>(~static_cast<std::uint32_t>(keys[i])));
    }
    std::sort(kept.begin() + static_cast<std::ptrdiff_t>(first), kept.end());
}

void require_scores(std::span<const float> scores, int tokens, int open) {
    if (open > 0 && scores.size() != static_cast<std::size_t>(tokens)) {
        throw failure("select got " + std::to_string(scores.size()) + " scores for " +
                      std::to_string(tokens) + " tokens; it needs one per token to choose " +
                      std::to_string(open) + " of them");
    }
}

// Pinned tokens first, then the ranges as far as the budget goes, then the best of the others.
std::vector<std::int32_t> select_pinned(std::span<const float> scores, int tokens, int keep,
                                        Protected fixed, std::span<const std::int32_t> pinned) {
    std::vector<char> chosen(static_cast<std::size_t>(tokens), 0);
    int left = keep;
    const auto choose = [&](int token) {
        if (left > 0 && chosen[token] == 0) {
            chosen[token] = 1;
            --left;
        }
    };
    std::for_each(pinned.begin(), pinned.end(), choose);
    for (int token = 0; token < std::min(fixed.front, tokens); ++token) {
        choose(token);
    }
    for (int token = tokens - 1; token >= std::max(0, tokens - fixed.back); --token) {
        choose(token);
    }
    require_scores(scores, tokens, left);
    std::vector<std::int32_t> others, best;
    std::vector<float> values;
    for (int token = 0; left > 0 && token < tokens; ++token) {
        if (chosen[token] == 0) {
            others.push_back(token);
            values.push_back(scores[token]);
        }
    }
    append_best(values, 0, static_cast<int>(values.size()), left, best);
    for (const std::int32_t i : best) {
        chosen[others[i]] = 1;
    }
    std::vector<std::int32_t> kept;
    kept.reserve(keep);
    for (int token = 0; token < tokens; ++token) {
        if (chosen[token] != 0) {
            kept.push_back(token);
        }
    }
    return kept;
}

}  // namespace

std::vector<std::int32_t> select(std::span<const float> scores, int tokens, int budget,
                                 Protected fixed, std::span<const std::int32_t> pinned) {
    const int keep = std::clamp(budget, 0, std::max(0, tokens));
    if (keep < tokens && !pinned.empty()) {
        return select_pinned(scores, tokens, keep, fixed, pinned);
    }
    // Where the ranges exceed the budget, the sinks win, then the newest tokens.
    const int front = keep < tokens ? std::clamp(fixed.front, 0, keep) : tokens;
    const int back = std::clamp(fixed.back, 0, std::max(0, keep - front));
    const int open = keep - front - back;
    require_scores(scores, tokens, keep < tokens ? open : 0);
    std::vector<std::int32_t> kept;
    kept.reserve(keep);
    for (int token = 0; token < front; ++token) {
        kept.push_back(token);
    }
    if (open > 0) {
        append_best(scores, front, tokens - back, open, kept);
    }
    for (int token = tokens - back; token < tokens; ++token) {
        kept.push_back(token);
    }
    return kept;
}

}  // namespace winnow
