#include "engine/pins.h"

#include <algorithm>
#include <climits>
#include <iterator>
#include <numeric>
#include <string>

#include "engine/budget.h"
#include "engine/session_impl.h"
#include "winnow/error.h"

namespace winnow {

void Pins::add(int first, int last) {
    auto at = std::lower_bound(ranges_.begin(), ranges_.end(), first,
                               [](const auto& range, int x) { return range.second < x; });
    auto end = at;
    for (; end != ranges_.end() && end->first <= last; ++end) {
        first = std::min(first, end->first);
        last = std::max(last, end->second);
    }
    ranges_.insert(ranges_.erase(at, end), {first, last});
}

bool Pins::hold(int position) const {
    return count(position, position + 1) > 0;
}

int Pins::count(int first, int last) const {
    int total = 0;
    for (const auto& range : ranges_) {
        total += std::max(0, std::min(last, range.second) - std::max(first, range.first));
    }
    return total;
}

std::vector<std::int32_t> Pins::among(std::span<const std::int32_t> positions) const {
    std::vector<std::int32_t> indices;
    for (const auto& [first, last] : ranges_) {
        const auto begin = std::lower_bound(positions.begin(), positions.end(), first);
        const auto end = std::lower_bound(begin, positions.end(), last);
        for (auto at = begin; at != end; ++at) {
            indices.push_back(static_cast<std::int32_t>(at - positions.begin()));
        }
    }
    return indices;
}

int mean_budget(const SessionLayer& layer) {
    const std::int64_t sum =
        std::accumulate(layer.budget.begin(), layer.budget.end(), std::int64_t{0});
    return static_cast<int>(sum / std::max<std::int64_t>(1, std::ssize(layer.budget)));
}

namespace {

Error too_many(int pinned, const std::string& beside, const std::string& needs,
               const std::string& has) {
    return usage_error("pinned are " + std::to_string(pinned) + " tokens, which with " + beside +
                       " need " + needs + ", but " + has +
                       "; pin less, or raise --max-capacity-prompts or --kv-budget.");
}

}  // namespace

void check_pins(const Session::Impl& session, int tokens) {
    const Plan& plan = session.plan;
    const int pinned = session.pins.count(0, session.context());
    if (pinned == 0) {
        return;
    }
    const PolicyParams& params = plan.params;
    const int sinks = params.n_sink - session.pins.count(0, params.n_sink);
    const std::string beside =
        std::to_string(sinks) + " sinks and the window of " + std::to_string(params.window_size);
    for (int layer = 0; layer < static_cast<int>(session.layers.size()); ++layer) {
        const std::string where = "layer " + std::to_string(layer) + " may keep ";
        if (plan.is_mixed()) {
            const double needed = least_mixed_bytes(plan, session.hparams(), layer, pinned);
            if (needed > plan.mixed.layer_bytes[layer]) {
                const auto has = static_cast<std::uint64_t>(plan.mixed.layer_bytes[layer]);
                throw too_many(pinned, beside, show_bytes(static_cast<std::uint64_t>(needed)),
                               where + show_bytes(has));
            }
            continue;
        }
        const int budget = tokens > 0 ? plan.budget(layer, tokens, session.budget_tokens)
                                      : mean_budget(session.layers[layer]);
        if (pinned + sinks + params.window_size > budget) {
            throw too_many(pinned, beside,
                           std::to_string(pinned + sinks + params.window_size) + " places",
                           where + std::to_string(budget) + " tokens per kv head");
        }
    }
}

}  // namespace winnow
