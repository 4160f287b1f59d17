// `mixed` while decoding: room for the next token, by demotion.
#include <algorithm>
#include <climits>
#include <cmath>
#include <map>
#include <numeric>
#include <queue>

#include "engine/budget.h"
#include "engine/mixed.h"

namespace winnow {

namespace {

// Sums fade, so that what the answer looks at now counts more than the prompt's last words.
constexpr float kMostQueries = 256.0F;
// Of a head's mean squared attention: what was not looked at lately may be again. Found beside
// squares instead of sums by teacher forcing 640 tokens behind 768 (SmolLM2, two places): the
// perplexity over the full cache's fell from 1.11 to 1.09 (1/8 of the prompt's bytes).
constexpr double kFloor = 0.05;
// A step frees at most this share of the layer's bytes, so that most of them stay in use.
constexpr double kSlackShare = 1.0 / 32.0;
constexpr int kMostTokensAtOnce = 16;

struct Step {
    double price = 0.0;  // loss per byte freed
    int g = 0;
    int tier = 0;             // where the token lies before the step
    int from = 0;             // where it lay at first
    int index = 0;            // in the span of tier `from`
    double importance = 0.0;  // squared attention of a query
    bool operator>(const Step& other) const {
        return std::tie(price, g, from, index, tier) >
               std::tie(other.price, other.g, other.from, other.index, other.tier);
    }
};

class RoomMaker {
  public:
    RoomMaker(Session::Impl& session, LayerStore& store) : session_(session), store_(store) {
        for (int tier = 0; tier < store.tiers(); ++tier) {
            const FormatSpec& spec = store.layout(tier).spec;
            cost_.push_back(static_cast<double>(spec.format->bytes(spec, Side::key, 1) +
                                                spec.format->bytes(spec, Side::value, 1) + 8));
        }
        cost_.push_back(0.0);
    }

    /// `end`: tokens from this position on do not give way.
    void free(double bytes, int end) {
        gather(end);
        while (bytes > 0.0 && !steps_.empty()) {
            const Step step = steps_.top();
            steps_.pop();
            bytes -= cost_[step.tier] - cost_[step.tier + 1];
            moves_[{step.g, step.from}][step.index] = step.tier + 1;
            if (step.tier + 1 < store_.tiers()) {
                push(step, step.tier + 1);
            }
        }
        apply();
    }

  private:
    // By storage: the squared attention that a query of a query head gave each token, mean over
    // the queries since it came.
    std::vector<double> squared_attention(int g, float queries, float group) {
        const float* sums = store_.sums(g);
        std::vector<double> result;
        for (int tier = 1; tier <= store_.tiers(); ++tier) {
            const Span& span = store_.span(g, tier % store_.tiers());
            for (int i = 0; i < span.tokens(); ++i) {
                const auto age = static_cast<float>(session_.position - span.position(i));
                const float seen = std::min(queries, std::max(1.0F, age));
                result.push_back(static_cast<double>(sums[result.size()] / (group * seen)));
            }
        }
        return result;
    }
    // The next step of every token that may move.
    void gather(int end) {
        const PolicyParams& params = session_.plan.params;
        const float queries = store_.notes().back();
        const auto group = static_cast<float>(store_.query_heads() / store_.kv_heads());
        for (int g = 0; g < store_.kv_heads(); ++g) {
            const std::vector<double> squared = squared_attention(g, queries, group);
            const double all = std::accumulate(squared.begin(), squared.end(), 0.0);
            const double floor =
                kFloor * all / std::max(1.0, static_cast<double>(squared.size())) + 1e-12;
            for (int tier = 0; tier < store_.tiers(); ++tier) {
                const Span& span = store_.span(g, tier);
                const int first = store_.first_of(g, tier);
                for (int i = 0; i < span.tokens(); ++i) {
                    if (span.position(i) < params.n_sink || span.position(i) >= end) {
                        continue;
                    }
                    push({.g = g,
                          .from = tier,
                          .index = i,
                          .importance = squared[first + i] + floor},
                         tier);
                }
            }
        }
    }
    void push(Step step, int tier) {
        const bool gone = tier + 1 == store_.tiers();
        const int position = store_.span(step.g, step.from).position(step.index);
        const bool recent = session_.position - position <= session_.plan.params.window_size;
        if (gone && (recent || session_.pinned(position))) {
            return;
        }
        const float* loss = store_.notes().data() + step.g * (store_.tiers() + 1);
        step.tier = tier;
        step.price = step.importance * static_cast<double>(loss[tier + 1] - loss[tier]) /
                     (cost_[tier] - cost_[tier + 1]);
        steps_.push(step);
    }
    // Drops first, then demotions: bytes only ever fall. Indices shift as tokens leave a span.
    void apply() {
        for (const auto& [where, targets] : moves_) {
            const auto [g, from] = where;
            std::map<int, std::vector<std::int32_t>, std::greater<>> by_target;
            for (const auto& [index, to] : targets) {
                by_target[to].push_back(index);
            }
            std::vector<std::int32_t> gone;
            for (const auto& [to, indices] : by_target) {
                std::vector<std::int32_t> now;
                for (const std::int32_t index : indices) {
                    const auto before = std::count_if(gone.begin(), gone.end(),
                                                      [&](auto other) { return other < index; });
                    now.push_back(index - static_cast<std::int32_t>(before));
                }
                const bool dropped = to == store_.tiers();
                store_.move(g, from, dropped ? -1 : to, now);
                (dropped ? session_.evictions : session_.demotions) += now.size();
                gone.insert(gone.end(), indices.begin(), indices.end());
            }
        }
    }

    Session::Impl& session_;
    LayerStore& store_;
    std::vector<double> cost_;
    std::priority_queue<Step, std::vector<Step>, std::greater<>> steps_;
    std::map<std::pair<int, int>, std::map<int, int>> moves_;  // (g, tier) -> index -> new tier
};

// One more query has been seen; now and then all sums are halved.
void fade(LayerStore& store) {
    float& queries = store.notes().back();
    queries += 1.0F;
    if (queries < kMostQueries) {
        return;
    }
    queries /= 2.0F;
    for (int g = 0; g < store.kv_heads(); ++g) {
        float* sums = store.sums(g);
        std::transform(sums, sums + store.tokens(g), sums, [](float x) { return x / 2.0F; });
    }
}

}  // namespace

namespace {

// Until one more token fits, or only protected tokens are left: the plan's minimum holds them.
// False where it does not fit.
bool free_until_it_fits(Session::Impl& session, int layer, int end) {
    LayerStore& store = *session.layers[layer].store;
    const double budget = session.plan.mixed.layer_bytes[layer];
    const auto token = static_cast<double>(mixed_token_bytes(session.hparams()));
    const auto over = [&] {
        return static_cast<double>(store.bytes() + store.policy_bytes()) + token - budget;
    };
    if (over() <= 0.0) {
        return true;
    }
    const double more =
        std::clamp(budget * kSlackShare / token, 1.0, static_cast<double>(kMostTokensAtOnce));
    RoomMaker(session, store).free(over() + (std::floor(more) - 1.0) * token, end);
    // Room that sums and positions keep is freed in steps.
    while (over() > 0.0) {
        const double before = over();
        RoomMaker(session, store).free(before, end);
        if (over() >= before) {
            return false;
        }
    }
    return true;
}

}  // namespace

void make_room_mixed(Session::Impl& session, int layer) {
    fade(*session.layers[layer].store);
    free_until_it_fits(session, layer, INT_MAX);
}

void make_room_for_question(Session::Impl& session, int layer) {
    if (!free_until_it_fits(session, layer, session.position)) {
        free_until_it_fits(session, layer, INT_MAX);
    }
}

}  // namespace winnow
