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

float norm2(const float* x, int n) {
    return std::sqrt(dot_rows(x, x, n));
}

std::vector<std::vector<float>> output_norms(const Observation& seen,
                                             float (*norm)(const float* x, int n)) {
    const int dims = seen.head_dim;
    const int width = (seen.embedding + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
    const int group = seen.query_heads / seen.kv_heads;
    std::vector<std::vector<float>> norms;
    for (int head = 0; head < seen.query_heads; ++head) {
        norms.emplace_back(static_cast<std::size_t>(seen.heads[head / group].tokens));
    }
    std::vector<std::vector<float>> rows(seen.threads), out(seen.threads);
    for_each_block(seen, [&](const RowBlock& block, int thread) {
        widen_rows(seen.heads[block.g].v, block.first, block.count, dims, rows[thread]);
        std::vector<float>& product = out[thread];
        product.resize(static_cast<std::size_t>(kRowBlock) * width);
        for (int r = 0; r < group; ++r) {
            const std::size_t head = static_cast<std::size_t>(block.g) * group + r;
            multiply(rows[thread].data(), dims, seen.output + head * dims * width, width,
                     product.data(), width, block.count, width, dims, false);
            for (int t = 0; t < block.count; ++t) {
                norms[head][block.first + t] =
                    norm(product.data() + static_cast<std::size_t>(t) * width, width);
            }
        }
    });
    return norms;
}

}  // namespace winnow
