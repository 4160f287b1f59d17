#include "eval/fidelity.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

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

void FidelityMeter::add(int i, std::span<const float> q) {
    const std::span<const float> p = full_.subspan(i * q.size(), q.size());
    const double p_sum = log_sum(p), q_sum = log_sum(q);
    const auto next = static_cast<std::size_t>(tokens_[static_cast<std::size_t>(i) + 1]);
    kl_.push_back(divergence(p, p_sum, q, q_sum));
    same_ += likeliest(p) == likeliest(q) ? 1 : 0;
    surprise_ += q_sum - q[next];
    surprise_full_ += p_sum - p[next];
}

Fidelity FidelityMeter::result() const {
    const auto n = static_cast<double>(kl_.size());
    return {.kl_mean = std::accumulate(kl_.begin(), kl_.end(), 0.0) / n,
            .kl_p99 = percentile99(kl_),
            .top1 = same_ / n,
            .ppl = std::exp(surprise_ / n),
            .ppl_full = std::exp(surprise_full_ / n),
            .tokens = static_cast<int>(kl_.size())};
}

Fidelity measure_fidelity(Session& session, std::span<const std::int32_t> tokens,
                          std::span<const float> full, Forcing forcing) {
    FidelityMeter meter(tokens, full);
    force(session, tokens, forcing,
          [&](int i, std::span<const float> logits) { meter.add(i, logits); });
    return meter.result();
}

}  // namespace winnow::eval
