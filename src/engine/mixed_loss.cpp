#include "engine/mixed_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "core/rope.h"
#include "core/threads.h"
#include "engine/query_scan.h"
#include "kernels/dense.h"

namespace winnow {

namespace {

constexpr int kSampleTokens = 48;
constexpr int kSampleQueries = 8;

float squared_length(const float* x, int n) {
    float sum = 0.0F;
    for (int i = 0; i < n; ++i) {
        sum += x[i] * x[i];
    }
    return sum;
}

// All observing queries' softmax and the outputs that they lead to.
struct Outputs {
    std::vector<RunningSoftmax> softmax;  // [rows]
    std::vector<float> o;                 // [rows][width]

    explicit Outputs(QueryScan& scan)
        : softmax(static_cast<std::size_t>(scan.rows())),
          o(static_cast<std::size_t>(scan.rows()) * scan.width()) {
        const std::size_t width = scan.width();
        scan.run([&](const ScanBlock& block) {
            float* out = o.data() + block.row * width;
            for (int i = 0; i < block.rows; ++i) {
                float* row = block.scores + i * block.columns;
                const int visible = block.visible(i);
                const double shrink = softmax[block.row + i].add(row, visible);
                std::fill(row + visible, row + block.columns, 0.0F);
                scale_by(out + i * width, static_cast<int>(width), static_cast<float>(shrink));
            }
            multiply(block.scores, block.columns, scan.values(), width, out, width, block.rows,
                     static_cast<int>(width), block.count, true);
        });
        for (int i = 0; i < scan.rows(); ++i) {
            scale_by(o.data() + i * width, static_cast<int>(width),
                     static_cast<float>(1.0 / softmax[i].total));
        }
    }
};

}  // namespace

TokenLoss observe_head(const Session::Impl& session, const LayerView& view, int g) {
    QueryScan scan(session, view, g);
    const int d = scan.dims(), tokens = scan.tokens();
    const std::size_t width = scan.width();
    TokenLoss loss;
    loss.weight.resize(tokens, 0.0F);
    loss.drop.resize(tokens, 0.0F);
    loss.mass.resize(tokens, 0.0F);
    if (scan.rows() == 0) {
        return loss;
    }
    const Outputs outputs(scan);
    std::vector<float> square(static_cast<std::size_t>(tokens)), vo;
    scan.run([&](const ScanBlock& block) {
        if (block.row == 0) {
            for (int t = 0; t < block.count; ++t) {
                square[block.first + t] = squared_length(scan.values() + t * width, d);
            }
        }
        const float* o = outputs.o.data() + block.row * width;
        vo.resize(block.rows * block.columns);
        multiply(o, width, scan.values_transposed(), block.columns, vo.data(), block.columns,
                 block.rows, static_cast<int>(block.columns), d, false);
        for (int i = 0; i < block.rows; ++i) {
            const RunningSoftmax& softmax = outputs.softmax[block.row + i];
            const float length = squared_length(o + i * width, d);
            float* weights = block.scores + i * block.columns;
            const int visible = block.visible(i);
            exp_and_sum(weights, visible, softmax.best);
            scale_by(weights, visible, static_cast<float>(1.0 / softmax.total));
            const float* product = vo.data() + i * block.columns;
            for (int j = 0; j < visible; ++j) {
                const int t = block.first + j;
                const float squared = weights[j] * weights[j];
                const float away = square[t] - 2.0F * product[j] + length;
                loss.mass[t] += weights[j];
                loss.weight[t] += squared;
                loss.drop[t] += squared * std::max(away, 0.0F);
            }
        }
    });
    return loss;
}

namespace {

// The share of the observing queries' softmax that head g's kept tokens hold.
double held_mass(const Session::Impl& session, const LayerView& view, int g,
                 std::span<const std::int32_t> kept) {
    QueryScan scan(session, view, g);
    std::vector<RunningSoftmax> rows(static_cast<std::size_t>(scan.rows()));
    std::vector<double> held(rows.size(), 0.0);
    auto here = kept.begin(), next = here;
    scan.run([&](const ScanBlock& block) {
        if (block.row == 0) {
            here = next;
            next = std::lower_bound(next, kept.end(), block.first + block.count);
        }
        for (int i = 0; i < block.rows; ++i) {
            float* scores = block.scores + i * block.columns;
            const int visible = block.visible(i);
            double& sum = held[block.row + i];
            sum *= rows[block.row + i].add(scores, visible);
            for (auto at = here; at != next && *at - block.first < visible; ++at) {
                sum += static_cast<double>(scores[*at - block.first]);
            }
        }
    });
    double sum = 0.0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        sum += held[i] / rows[i].total;
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
