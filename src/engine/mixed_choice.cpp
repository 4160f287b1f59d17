#include "engine/mixed_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace winnow {

namespace {

constexpr float kFloor = 0.02F;  // of the mean loss: no token is worth nothing
constexpr float kPinned = 1e30F;
constexpr float kNever = std::numeric_limits<float>::infinity();

std::vector<float> max_pooled(const std::vector<float>& x, int kernel) {
    const int n = static_cast<int>(x.size()), half = kernel / 2;
    float mean = 0.0F;
    for (const float value : x) {
        mean += value / static_cast<float>(n);
    }
    std::vector<float> out(x.size());
    for (int t = 0; t < n; ++t) {
        const auto first = x.begin() + std::max(0, t - half);
        const auto last = x.begin() + std::min(n, t + half + 1);
        out[t] = *std::max_element(first, last) + kFloor * mean;
    }
    return out;
}

// The tier of every token of head g by position, for the rows of a span read back.
std::vector<int> tiers_by_position(const LayerStore& store, int g, int tokens) {
    std::vector<int> of_storage;
    for (int tier = 1; tier <= store.tiers(); ++tier) {
        of_storage.insert(of_storage.end(), store.span(g, tier % store.tiers()).tokens(),
                          tier % store.tiers());
    }
    std::vector<int> result;
    for (const std::int32_t at : store.by_position(g)) {
        result.push_back(of_storage[at]);
    }
    result.resize(tokens, 0);  // new tokens are exact
    return result;
}

// The best tier of every token at a price per byte; returns the bytes.
double choose(std::vector<HeadChoice>& heads, const MixedSettings& settings,
              const std::vector<double>& cost, double price) {
    const int tiers = static_cast<int>(cost.size()) - 1;
    double bytes = 0.0;
    for (HeadChoice& head : heads) {
        for (int t = 0; t < static_cast<int>(head.tier.size()); ++t) {
            double least = std::numeric_limits<double>::infinity();
            for (int tier = 0; tier <= tiers; ++tier) {
                const double total =
                    static_cast<double>(head.loss(settings, tier, tiers, t)) + price * cost[tier];
                if (total < least) {
                    least = total;
                    head.tier[t] = static_cast<std::uint8_t>(tier);
                }
            }
            bytes += cost[head.tier[t]];
        }
    }
    return bytes;
}

}  // namespace

float HeadChoice::loss(const MixedSettings& settings, int at, int tiers, int t) const {
    if (at < worth->least[t] || (t < worth->sinks && at > worth->least[t])) {
        return kNever;
    }
    const float away = worth->away[t];
    if (at == 0 || at == tiers) {
        return at == 0 ? 0.0F : worth->pinned[t] != 0 ? kPinned : away;
    }
    const TierError& error = worth->error[at];
    const float stored = static_cast<float>(settings.score_error * error.score) * away +
                         static_cast<float>(settings.value_error * error.value) * worth->weight[t];
    return std::min(away, stored);
}

HeadWorth weigh_head(const Session::Impl& session, const LayerStore& store, const LayerView& view,
                     int g) {
    const LayerKv::Head& rows = view.kv->head(g);
    const int tokens = rows.tokens;
    const PolicyParams& params = session.plan.params;
    TokenLoss seen = observe_head(session, view, g);
    HeadWorth head;
    head.mass = std::move(seen.mass);
    head.away = max_pooled(seen.drop, params.kernel_size);
    head.weight = max_pooled(seen.weight, params.kernel_size);
    head.error.resize(store.tiers());
    for (int tier = 1; tier < store.tiers(); ++tier) {
        head.error[tier] = measure_tier(session, store, view, g, tier);
    }
    for (int t = 0; t < tokens; ++t) {
        head.pinned.push_back(
            t >= tokens - params.window_size || session.pinned(rows.positions[t]) ? 1 : 0);
    }
    head.least = tiers_by_position(store, g, tokens);
    head.sinks = std::min(params.n_sink, tokens);
    return head;
}

void choose_within(std::vector<HeadChoice>& heads, const MixedSettings& settings,
                   const std::vector<double>& cost, double bytes) {
    if (choose(heads, settings, cost, 0.0) <= bytes) {
        return;
    }
    double low = -120.0, high = 120.0;
    for (int i = 0; i < 48; ++i) {
        const double middle = (low + high) / 2.0;
        (choose(heads, settings, cost, std::exp2(middle)) > bytes ? low : high) = middle;
    }
    choose(heads, settings, cost, std::exp2(high));
}

double mass_dropped(const std::vector<HeadChoice>& heads, int tiers) {
    double sum = 0.0;
    for (const HeadChoice& head : heads) {
        double gone = 0.0, whole = 0.0;
        for (std::size_t t = 0; t < head.tier.size(); ++t) {
            const auto mass = static_cast<double>(head.worth->mass[t]);
            whole += mass;
            gone += head.tier[t] == tiers ? mass : 0.0;
        }
        sum += whole > 0.0 ? gone / whole : 0.0;
    }
    return sum / static_cast<double>(heads.size());
}

}  // namespace winnow
