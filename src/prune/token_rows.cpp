#include "prune/token_rows.h"

#include <algorithm>
#include <cmath>

#include "core/threads.h"
#include "kernels/dense.h"

namespace winnow {

void for_each_block(const Observation& seen,
                    const std::function<void(const RowBlock& block, int thread)>& body) {
    std::vector<RowBlock> blocks;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const int tokens = seen.heads[g].tokens;
        for (int first = 0; first < tokens; first += kRowBlock) {
            blocks.push_back({.g = g,
                              .block = first / kRowBlock,
                              .first = first,
                              .count = std::min(kRowBlock, tokens - first)});
        }
    }
    parallel_for(seen.threads, static_cast<int>(blocks.size()),
                 [&](int task, int thread) { body(blocks[task], thread); });
}

void widen_rows(const f16* from, int first, int count, int head_dim, std::vector<float>& rows) {
    const std::size_t n = static_cast<std::size_t>(count) * head_dim;
    rows.resize(std::max(rows.size(), n));
    widen(from + static_cast<std::size_t>(first) * head_dim, rows.data(), n);
}

// Eight lanes, so that the loop becomes vector code without reordering what the source says.
float dot_rows(const float* a, const float* b, int n) {
    float part[8] = {};
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
            part[lane] += a[i + lane] * b[i + lane];
        }
    }
    for (; i < n; ++i) {
        part[i % 8] += a[i] * b[i];
    }
    return ((part[0] + part[4]) + (part[1] + part[5])) +
           ((part[2] + part[6]) + (part[3] + part[7]));
}

float norm1(const float* x, int n) {
    float part[8] = {};
    for (int i = 0; i < n; ++i) {
        part[i % 8] += std::abs(x[i]);
    }
    return ((part[0] + part[4]) + (part[1] + part[5])) +
           ((part[2] + part[6]) + (part[3] + part[7]));
}

}  // namespace winnow
