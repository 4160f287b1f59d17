// R-KV (arXiv 2505.24133): important tokens that do not repeat others; made for long answers.
#include <algorithm>
#include <cmath>

#include "core/threads.h"
#include "kernels/dense.h"
#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

constexpr float kImportance = 0.1F;  // the paper's lambda; redundancy weighs the rest
constexpr float kSimilar = 0.5F;     // cosine from which on a key repeats another
constexpr int kRows = 32;            // keys compared at once with a tile of others
constexpr int kTile = 256;

/// Unit keys of one kv head: [T][D], and transposed [D][T padded]. A key of no length stays zero.
struct UnitKeys {
    int tokens, dims;
    std::size_t stride;
    std::vector<float> rows, columns;

    UnitKeys(const HeadObservation& head, int dims_)
        : tokens(head.tokens),
          dims(dims_),
          stride((static_cast<std::size_t>(tokens) + kTile - 1) / kTile * kTile) {
        widen_rows(head.k, 0, tokens, dims, rows);
        columns.resize(stride * dims);
        for (int t = 0; t < tokens; ++t) {
            float* row = this->row(t);
            const float norm = std::sqrt(dot_rows(row, row, dims));
            for (int d = 0; d < dims; ++d) {
                row[d] = norm > 0.0F ? row[d] / norm : 0.0F;
                columns[d * stride + t] = row[d];
            }
        }
    }
    float* row(int t) { return rows.data() + static_cast<std::size_t>(t) * dims; }
};

struct Spared {
    int token = -1;
    float cosine = 0.0F;
};

// For keys first.. the newest other key that each is similar to. Tiles are looked at from the
// newest on, until all have found theirs: T^2 D at worst, far less where keys resemble each other.
void find_spared(UnitKeys& keys, int first, std::vector<float>& scratch, Spared* out) {
    const int count = std::min(kRows, keys.tokens - first);
    scratch.resize(static_cast<std::size_t>(kRows) * kTile);
    int missing = count;
    for (int start = (keys.tokens - 1) / kTile * kTile; start >= 0 && missing > 0; start -= kTile) {
        multiply(keys.row(first), keys.dims, keys.columns.data() + start, keys.stride,
                 scratch.data(), kTile, count, kTile, keys.dims, false);
        for (int i = 0; i < count; ++i) {
            const float* cosine = scratch.data() + static_cast<std::size_t>(i) * kTile;
            int t = std::min(kTile, keys.tokens - start) - 1;
            while (out[i].token < 0 && t >= 0 &&
                   (start + t == first + i || cosine[t] <= kSimilar)) {
                --t;
            }
            if (out[i].token < 0 && t >= 0) {
                out[i] = {start + t, cosine[t]};
                --missing;
            }
        }
    }
}

// redundancy[t]: softmax over tokens of the mean cosine with all other keys, where each key spares
// the newest one that it is similar to. Sums of unit keys stand for the matrix of cosines.
void redundancy(UnitKeys& keys, int threads, std::vector<float>& out) {
    const int tokens = keys.tokens;
    std::vector<Spared> spared(tokens);
    std::vector<std::vector<float>> scratch(threads);
    parallel_for(threads, (tokens + kRows - 1) / kRows, [&](int block, int thread) {
        find_spared(keys, block * kRows, scratch[thread],
                    &spared[static_cast<std::size_t>(block) * kRows]);
    });
    std::vector<float> sum(keys.dims, 0.0F);
    for (int t = 0; t < tokens; ++t) {
        add_scaled(sum.data(), keys.row(t), keys.dims, 1.0F);
    }
    out.resize(tokens);
    for (int t = 0; t < tokens; ++t) {
        const float* k = keys.row(t);
        out[t] = dot_rows(k, sum.data(), keys.dims) - dot_rows(k, k, keys.dims);
    }
    for (const Spared& s : spared) {
        if (s.token >= 0) {
            out[s.token] -= s.cosine;
        }
    }
    scale_by(out.data(), tokens, 1.0F / static_cast<float>(tokens));
    const float total = exp_and_sum(out.data(), tokens, max_of(out.data(), tokens));
    scale_by(out.data(), tokens, 1.0F / total);
}

void score(const Observation& seen, const PolicyParams& params, std::span<float* const> scores) {
    window_attention_scores(seen, params, scores);
    std::vector<float> repeats;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const int tokens = seen.heads[g].tokens;
        if (tokens == 0) {
            continue;
        }
        UnitKeys keys(seen.heads[g], seen.head_dim);
        redundancy(keys, seen.threads, repeats);
        for (int t = 0; t < tokens; ++t) {
            const float importance = scores[g][t] / static_cast<float>(std::max(1, seen.window));
            scores[g][t] = kImportance * importance - (1.0F - kImportance) * repeats[t];
        }
    }
}

}  // namespace

extern const Policy policy_r_kv;
const Policy policy_r_kv{
    .name = "r_kv",
    .paper = "2505.24133",
    .summary =
        "attention of the last W queries, less the likeness to other keys; acts every 128 tokens "
        "of an answer",
    .departures =
        "prompts are pruned by the same score; importance is a softmax over all visible keys, "
        "averaged over the query heads of a kv head; a key that resembles no other spares none, "
        "where the official code spares the first; as in the paper, up to 128 tokens of an answer "
        "wait beside the cap until it acts, and --kv-budget counts them",
    .needs = kNeedsWindow | kNeedsKeys,
    .default_window = 8,
    .protect = protect_ends,
    .score = score,
    .scores_without_cap = true,
    .interval = 128,
};

}  // namespace winnow
