#include "eval/fidelity.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace winnow::eval {

namespace {

using Sink = std::function<void(int, std::span<const float>)>;

void force(Session& session, std::span<const std::int32_t> tokens, Forcing forcing,
           const Sink& sink) {
    const auto read = tokens.first(tokens.size() - 1);
    if (forcing == Forcing::chunk) {
        session.score(read, sink);
        return;
    }
    for (std::size_t i = 0; i < read.size(); ++i) {
        session.decode(read[i]);
        sink(static_cast<int>(i), session.logits());
    }
}

std::size_t likeliest(std::span<const float> logits) {
    return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) -
                                    logits.begin());
}

double log_sum(std::span<const float> logits) {
    const double top = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (const float x : logits) {
        sum += std::exp(x - top);
    }
    return top + std::log(sum);
}

// KL(p || q) of two rows of logits with their log sums.
double divergence(std::span<const float> p, double p_sum, std::span<const float> q, double q_sum) {
    double total = 0.0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        const double log_p = p[i] - p_sum;
        total += std::exp(log_p) * (log_p - (q[i] - q_sum));
    }
    return std::max(total, 0.0);  // rounding may take equal rows just below
}

// The value that 99 % of `all` do not exceed (nearest rank).
double percentile99(std::vector<double> all) {
    std::sort(all.begin(), all.end());
    const auto rank = static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(all.size())));
    return all[std::max<std::size_t>(rank, 1) - 1];
}

}  // namespace

std::vector<float> forced_logits(Session& session, std::span<const std::int32_t> tokens,
                                 Forcing forcing) {
    std::vector<float> all;
    force(session, tokens, forcing, [&](int, std::span<const float> logits) {
        all.insert(all.end(), logits.begin(), logits.end());
    });
    return all;
}

Fidelity measure_fidelity(Session& session, std::span<const std::int32_t> tokens,
                          std::span<const float> full, Forcing forcing) {
    std::vector<double> kl;
    double surprise = 0.0, surprise_full = 0.0;
    int same = 0;
    force(session, tokens, forcing, [&](int i, std::span<const float> q) {
        const std::span<const float> p = full.subspan(i * q.size(), q.size());
        const double p_sum = log_sum(p), q_sum = log_sum(q);
        const auto next = static_cast<std::size_t>(tokens[static_cast<std::size_t>(i) + 1]);
        kl.push_back(divergence(p, p_sum, q, q_sum));
        same += likeliest(p) == likeliest(q) ? 1 : 0;
        surprise += q_sum - q[next];
        surprise_full += p_sum - p[next];
    });
    const auto n = static_cast<double>(kl.size());
    double sum = 0.0;
    for (const double x : kl) {
        sum += x;
    }
    return {.kl_mean = sum / n,
            .kl_p99 = percentile99(kl),
            .top1 = same / n,
            .ppl = std::exp(surprise / n),
            .ppl_full = std::exp(surprise_full / n),
            .tokens = static_cast<int>(kl.size())};
}

}  // namespace winnow::eval
