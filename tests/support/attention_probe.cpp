#include "support/attention_probe.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/session_impl.h"

namespace winnow::testing {

namespace {

std::vector<ProbedLayer>* recording = nullptr;

int keep_all_but_one(const PolicyParams&, int, int, int tokens) {
    return tokens - 1;
}

void record(const Observation& seen, const PolicyParams&, std::span<float* const> scores) {
    std::vector<int> tokens;
    for (const HeadObservation& head : seen.heads) {
        tokens.push_back(head.tokens);
    }
    const int group = seen.query_heads / seen.kv_heads;
    ProbedLayer& layer =
        recording->emplace_back(ProbedLayer{reference::Layer(group, tokens, seen.head_dim, 0), {}});
    const std::size_t row = static_cast<std::size_t>(seen.query_heads) * seen.head_dim;
    layer.attention.queries.assign(
        seen.window_queries, seen.window_queries + static_cast<std::size_t>(seen.window) * row);
    for (int g = 0; g < seen.kv_heads; ++g) {
        const HeadObservation& head = seen.heads[g];
        const std::size_t n = static_cast<std::size_t>(head.tokens);
        layer.attention.keys[g].assign(head.k, head.k + n * seen.head_dim);
        layer.attention.values[g].assign(head.v, head.v + n * seen.head_dim);
        layer.column_sums.emplace_back(head.column_sums, head.column_sums + n * group);
        std::fill_n(scores[g], n, 0.0F);
    }
}

const Policy kProbe{.name = "probe",
                    .paper = "",
                    .summary = "records what a policy is shown",
                    .departures = "",
                    .needs = kNeedsWindow | kNeedsColumnSums | kNeedsKeys | kNeedsValues,
                    .budget = keep_all_but_one,
                    .score = record};

}  // namespace

std::vector<ProbedLayer> probe_attention(std::shared_ptr<const Model> model,
                                         const std::vector<std::int32_t>& tokens) {
    std::vector<ProbedLayer> layers;
    CacheOptions options;
    options.method = "streamingllm";
    options.max_capacity_prompts = 8;  // below the prompt, or nothing would be scored
    Session session(std::move(model), options);
    Session::Impl& impl = session.impl();
    impl.plan.policy = &kProbe;
    impl.plan.memory = {.window = static_cast<int>(tokens.size()), .column_sums = true};
    for (std::size_t layer = 0; layer < impl.layers.size(); ++layer) {
        impl.layers[layer].store = impl.new_store(static_cast<int>(layer));
    }
    recording = &layers;
    session.prefill(tokens);
    recording = nullptr;
    return layers;
}

double column_sum_error(const ProbedLayer& layer) {
    double worst = 0.0;
    const reference::Layer& seen = layer.attention;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const int tokens = seen.tokens[g];
        for (int r = 0; r < seen.group(); ++r) {
            const std::vector<double> plain = reference::column_sums(seen, g, r, tokens);
            const float* found = layer.column_sums[g].data() + static_cast<std::size_t>(r) * tokens;
            for (int j = 0; j < tokens; ++j) {
                worst = std::max(worst, std::abs(found[j] - plain[j]) / plain[j]);
            }
        }
    }
    return worst;
}

void compare_kept(const std::vector<double>& scores, const KeptHead& kept, int budget, int front,
                  int back, KeptDifference& found) {
    std::vector<double> all = scores;  // a prefix's scores stop before the window
    const int tokens = kept.positions.empty() ? 0 : kept.positions.back() + 1;
    all.resize(static_cast<std::size_t>(tokens), 0.0);
    const std::vector<std::int32_t> plain = reference::keep_best(all, tokens, budget, front, back);
    double threshold = HUGE_VAL;
    for (const std::int32_t at : plain) {
        if (at >= front && at < tokens - back) {
            threshold = std::min(threshold, all[at]);
        }
    }
    std::vector<std::int32_t> alone;
    std::set_symmetric_difference(plain.begin(), plain.end(), kept.positions.begin(),
                                  kept.positions.end(), std::back_inserter(alone));
    found.tokens += static_cast<int>(plain.size());
    found.different += static_cast<int>(alone.size());
    for (const std::int32_t at : alone) {
        found.farthest = std::max(found.farthest, std::abs(all[at] - threshold) / threshold);
    }
}

int pyramid_budget(int cap, int window, int beta, int layer, int layers, int tokens) {
    const int rest = cap - window;
    if (tokens < 2 * rest) {
        return cap;
    }
    int least = rest / beta;
    int most = 2 * rest - least;
    if (most > tokens - window) {
        most = tokens - window;
        least = 2 * rest - most;
    }
    return most - layer * ((most - least) / (layers - 1)) + window;
}

}  // namespace winnow::testing
