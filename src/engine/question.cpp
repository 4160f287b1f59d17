#include "engine/question.h"

#include <algorithm>
#include <string>

#include "engine/budget.h"
#include "engine/compress.h"
#include "engine/mixed.h"
#include "kernels/dense.h"
#include "winnow/error.h"

namespace winnow {

namespace {

// A token's running sum of kv head g: its query heads' own, or one for all of them. Where a store
// sums squares, those of the mean over the `queries` that saw the token.
void set_sums(LayerStore& store, int g, int at, const float* sums, std::size_t stride, int token,
              int queries) {
    const int group = store.query_heads() / store.kv_heads();
    float* to = store.sums(g);
    for (int r = 0; r < group; ++r) {
        const float sum_seen = sums[(g * group + r) * stride + token];
        const float seen = store.memory().decode_squares
                               ? sum_seen * sum_seen / static_cast<float>(queries)
                               : sum_seen;
        float& sum = to[(store.sum_rows() == 1 ? 0 : r) * store.sums_stride(g) + at];
        sum = store.memory().largest ? std::max(sum, seen) : sum + seen;
    }
}

// One token after the other, as decoding would, so that the layer never passes its bytes.
void append_mixed(Session::Impl& session, int layer, const LayerKv& kv, const float* sums,
                  std::size_t stride) {
    LayerStore& store = *session.layers[layer].store;
    const std::size_t d = static_cast<std::size_t>(kv.head_dim());
    std::vector<float> k(d * kv.kv_heads()), v(k.size());
    const LayerKv::Head& first = kv.head(0);
    for (int i = 0; i < first.tokens - first.kept; ++i) {
        make_room_for_question(session, layer);
        for (int g = 0; g < kv.kv_heads(); ++g) {
            const LayerKv::Head& head = kv.head(g);
            widen(head.k + (head.kept + i) * d, k.data() + g * d, d);
            widen(head.v + (head.kept + i) * d, v.data() + g * d, d);
        }
        store.append(k.data(), v.data(), first.positions[first.kept + i]);
        for (int g = 0; g < kv.kv_heads(); ++g) {
            set_sums(store, g, store.tokens(g) - 1, sums, stride, kv.head(g).kept + i,
                     first.tokens - first.kept - i);
        }
    }
}

}  // namespace

void check_question(const Session::Impl& session, int count) {
    const Plan& plan = session.plan;
    if (plan.options.kv_budget.empty() && !plan.is_mixed()) {
        return;
    }
    const int pinned = session.pins.count(0, session.context()) + count;
    for (int layer = 0; layer < static_cast<int>(session.layers.size()); ++layer) {
        const PolicyParams& p = plan.params;
        const double has = plan.is_mixed()
                               ? plan.mixed.layer_bytes[layer]
                               : static_cast<double>(mean_budget(session.layers[layer]));
        const double needs = plan.is_mixed()
                                 ? least_mixed_bytes(plan, session.hparams(), layer, pinned)
                                 : pinned + p.n_sink + p.window_size;
        if (needs > has) {
            const std::string unit = plan.is_mixed() ? " bytes" : " tokens";
            throw usage_error("the question has " + std::to_string(count) +
                              " tokens; kept whole they need " +
                              std::to_string(static_cast<std::int64_t>(needs)) + unit +
                              " in layer " + std::to_string(layer) + ", whose budget has " +
                              std::to_string(static_cast<std::int64_t>(has)) +
                              "; shorten it, pin less, or raise --kv-budget.");
        }
    }
}

void append_question(Session::Impl& session, int layer, const LayerKv& kv, const float* sums,
                     std::size_t stride) {
    if (session.plan.is_mixed()) {
        append_mixed(session, layer, kv, sums, stride);
        return;
    }
    LayerStore& store = *session.layers[layer].store;
    const LayerKv::Head& first = kv.head(0);
    const int count = first.tokens - first.kept;
    make_room(session, layer, count);
    // make_room may have dropped older tokens, whose rows `kv` still has.
    std::vector<int> held;
    for (int g = 0; g < store.kv_heads(); ++g) {
        held.push_back(store.tokens(g));
    }
    store.append(kv);
    for (int g = 0; store.adds_weights() && g < store.kv_heads(); ++g) {
        for (int i = 0; i < count; ++i) {
            set_sums(store, g, held[g] + i, sums, stride, kv.head(g).kept + i, count - i);
        }
    }
    store.forget_queries();
}

}  // namespace winnow
