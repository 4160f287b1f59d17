#include "engine/mixed_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "core/rope.h"
#include "core/threads.h"
#include "kernels/dense.h"

namespace winnow {

namespace {

constexpr int kQueriesAtOnce = 8;
constexpr int kBlockTokens = 512;  // a multiple of kColumnBlock
constexpr int kSampleTokens = 48;
constexpr int kSampleQueries = 8;

int padded(int n) {
    return (n + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
}

/// One head's rows in the layouts the products want.
struct Rows {
    int tokens, dims, columns, width;
    std::vector<float> kt, vt;  // [D][columns]
    std::vector<float> v;       // [T][width]
    std::vector<float> square;  // [T] |v|^2

    Rows(const LayerKv::Head& head, int d)
        : tokens(head.tokens), dims(d), columns(padded(tokens)), width(padded(d)) {
        const auto size = static_cast<std::size_t>(columns) * d;
        kt.resize(size);
        vt.resize(size);
        widen_transposed(head.k, tokens, d, kt.data(), columns);
        widen_transposed(head.v, tokens, d, vt.data(), columns);
        v.resize(static_cast<std::size_t>(tokens) * width, 0.0F);
        square.resize(tokens, 0.0F);
        for (int t = 0; t < tokens; ++t) {
            float* row = v.data() + static_cast<std::size_t>(t) * width;
            widen(head.v + static_cast<std::size_t>(t) * d, row, static_cast<std::size_t>(d));
            for (int i = 0; i < d; ++i) {
                square[t] += row[i] * row[i];
            }
        }
    }
};

}  // namespace

TokenLoss observe_head(const Session::Impl& session, const LayerView& view, int g) {
    const Hparams& h = session.hparams();
    const int d = h.head_dim, group = h.query_heads / h.kv_heads;
    const Rows rows(view.kv->head(g), d);
    const int tokens = rows.tokens;
    const float scale = 1.0F / std::sqrt(static_cast<float>(d));
    TokenLoss loss;
    loss.weight.resize(tokens, 0.0F);
    loss.drop.resize(tokens, 0.0F);
    loss.mass.resize(tokens, 0.0F);
    const int most = kQueriesAtOnce * group;
    std::vector<float> q(static_cast<std::size_t>(most) * d);
    std::vector<float> a(static_cast<std::size_t>(most) * rows.columns), vo(a.size());
    std::vector<float> o(static_cast<std::size_t>(most) * rows.width);
    for (int first = 0; first < view.window; first += kQueriesAtOnce) {
        const int queries = std::min(kQueriesAtOnce, view.window - first);
        const int m = queries * group;
        for (int i = 0; i < queries; ++i) {
            const float* from =
                view.window_queries.data() +
                (static_cast<std::size_t>(first + i) * h.query_heads + g * group) * d;
            std::copy_n(from, static_cast<std::size_t>(group) * d,
                        q.data() + static_cast<std::size_t>(i) * group * d);
        }
        scale_by(q.data(), m * d, scale);
        const auto columns = static_cast<std::size_t>(rows.columns);
        multiply(q.data(), d, rows.kt.data(), columns, a.data(), columns, m, rows.columns, d,
                 false);
        for (int i = 0; i < m; ++i) {
            float* row = a.data() + i * columns;
            const int visible = tokens - view.window + first + i / group + 1;
            const float total = exp_and_sum(row, visible, max_of(row, visible));
            std::fill(row + visible, row + columns, 0.0F);
            scale_by(row, visible, 1.0F / total);
        }
        const auto width = static_cast<std::size_t>(rows.width);
        multiply(a.data(), columns, rows.v.data(), width, o.data(), width, m, rows.width, tokens,
                 false);
        multiply(o.data(), width, rows.vt.data(), columns, vo.data(), columns, m, rows.columns, d,
                 false);
        for (int i = 0; i < m; ++i) {
            float length = 0.0F;
            for (int c = 0; c < d; ++c) {
                length += o[i * width + c] * o[i * width + c];
            }
            loss.output += static_cast<double>(length);
            const float* weights = a.data() + i * columns;
            const float* product = vo.data() + i * columns;
            for (int t = 0; t < tokens; ++t) {
                const float square = weights[t] * weights[t];
                const float away = rows.square[t] - 2.0F * product[t] + length;
                loss.mass[t] += weights[t];
                loss.weight[t] += square;
                loss.drop[t] += square * std::max(away, 0.0F);
            }
        }
    }
    return loss;
}

namespace {

// One observing query's softmax as it grows block by block.
struct RunningMass {
    float best = -std::numeric_limits<float>::infinity();
    double total = 0.0, held = 0.0;

    // `scores` [visible] are overwritten; `kept` are the block's kept tokens, from its first on.
    void add(float* scores, int visible, std::span<const std::int32_t> kept, int first) {
        const float top = std::max(best, max_of(scores, visible));
        const double shrink = std::exp(static_cast<double>(best) - static_cast<double>(top));
        total = total * shrink + static_cast<double>(exp_and_sum(scores, visible, top));
        held *= shrink;
        for (const std::int32_t t : kept) {
            if (t - first < visible) {
                held += static_cast<double>(scores[t - first]);
            }
        }
        best = top;
    }
};

// The share of the observing queries' softmax that head g's kept tokens hold. Keys are widened a
// block at a time, so the memory does not grow with the prompt.
double held_mass(const Session::Impl& session, const LayerView& view, int g,
                 std::span<const std::int32_t> kept) {
    const Hparams& h = session.hparams();
    const int d = h.head_dim, group = h.query_heads / h.kv_heads;
    const LayerKv::Head& head = view.kv->head(g);
    const int most = kQueriesAtOnce * group;
    std::vector<float> q(static_cast<std::size_t>(view.window) * group * d);
    std::vector<float> keys(static_cast<std::size_t>(d) * kBlockTokens);
    std::vector<float> scores(static_cast<std::size_t>(most) * kBlockTokens);
    std::vector<RunningMass> rows(static_cast<std::size_t>(view.window) * group);
    for (int i = 0; i < view.window; ++i) {
        const std::size_t from = (static_cast<std::size_t>(i) * h.query_heads + g * group) * d;
        std::copy_n(view.window_queries.data() + from, static_cast<std::size_t>(group) * d,
                    q.data() + static_cast<std::size_t>(i) * group * d);
    }
    scale_by(q.data(), static_cast<int>(q.size()), 1.0F / std::sqrt(static_cast<float>(d)));
    auto next = kept.begin();
    for (int first = 0; first < head.tokens; first += kBlockTokens) {
        const int count = std::min(kBlockTokens, head.tokens - first);
        const auto columns = static_cast<std::size_t>(padded(count));
        widen_transposed(head.k + static_cast<std::size_t>(first) * d, count, d, keys.data(),
                         padded(count));
        const auto here = next;
        next = std::lower_bound(next, kept.end(), first + count);
        for (int row = 0; row < static_cast<int>(rows.size()); row += most) {
            const int m = std::min(most, static_cast<int>(rows.size()) - row);
            multiply(q.data() + static_cast<std::size_t>(row) * d, d, keys.data(), columns,
                     scores.data(), columns, m, padded(count), d, false);
            for (int i = 0; i < m; ++i) {
                const int seen = head.tokens - view.window + (row + i) / group + 1 - first;
                if (seen > 0) {
                    rows[row + i].add(scores.data() + i * columns, std::min(seen, count),
                                      {here, next}, first);
                }
            }
        }
    }
    double sum = 0.0;
    for (const RunningMass& row : rows) {
        sum += row.held / row.total;
    }
    return sum / static_cast<double>(rows.size());
}

}  // namespace

double dropped_mass(const Session::Impl& session, const LayerView& view,
                    const std::vector<std::vector<std::int32_t>>& kept) {
    const int heads = session.hparams().kv_heads;
    if (view.window == 0) {
        return 0.0;
    }
    std::vector<double> dropped(kept.size());
    parallel_for(session.m().threads, heads, [&](int g, int) {
        dropped[g] = std::clamp(1.0 - held_mass(session, view, g, kept[g]), 0.0, 1.0);
    });
    return std::accumulate(dropped.begin(), dropped.end(), 0.0) / heads;
}

TierError measure_tier(const Session::Impl& session, const LayerStore& store, const LayerView& view,
                       int g, int tier) {
    const Hparams& h = session.hparams();
    const int d = h.head_dim, group = h.query_heads / h.kv_heads;
    const SpanLayout& layout = store.layout(tier);
    const FormatSpec& spec = layout.spec;
    const LayerKv::Head& head = view.kv->head(g);
    const auto row_size = static_cast<std::size_t>(d);
    std::vector<float> k(row_size), v(row_size), back(row_size);
    std::vector<std::uint8_t> packed(
        std::max(spec.format->bytes(spec, Side::key, 1), spec.format->bytes(spec, Side::value, 1)));
    TierError error;
    int count = 0, products = 0;
    const int step = std::max(1, head.tokens / kSampleTokens);
    const int query_step = std::max(1, view.window / kSampleQueries);
    for (int t = 0; t < head.tokens; t += step, ++count) {
        const std::int32_t position = head.positions[t];
        const TileView tile{.data = packed.data(),
                            .tokens = 1,
                            .side_data = store.side_data(g, tier),
                            .positions = &position,
                            .rope = layout.rope};
        widen(head.k + t * row_size, k.data(), row_size);
        if (layout.pre_rope()) {
            layout.rope->unrotate(k.data(), position);
        }
        spec.format->pack(spec, Side::key, k.data(), 1, tile.side_data, packed.data());
        spec.format->unpack(spec, Side::key, tile, back.data());
        for (int i = 0; i < d; ++i) {
            back[i] -= k[i];
        }
        if (layout.pre_rope()) {
            layout.rope->rotate(back.data(), position);
        }
        for (int w = 0; w < view.window; w += query_step) {
            for (int r = 0; r < group; ++r, ++products) {
                const float* q = view.window_queries.data() +
                                 (static_cast<std::size_t>(w) * h.query_heads + g * group + r) * d;
                double dot = 0.0;
                for (int i = 0; i < d; ++i) {
                    dot += static_cast<double>(q[i] * back[i]);
                }
                error.score += dot * dot / d;
            }
        }
        widen(head.v + t * row_size, v.data(), row_size);
        spec.format->pack(spec, Side::value, v.data(), 1, tile.side_data, packed.data());
        spec.format->unpack(spec, Side::value, tile, back.data());
        for (int i = 0; i < d; ++i) {
            error.value += static_cast<double>((back[i] - v[i]) * (back[i] - v[i]));
        }
    }
    error.score /= std::max(1, products);
    error.value /= std::max(1, count);
    return error;
}

}  // namespace winnow
