#include "report/stats.h"

#include <algorithm>
#include <cmath>

#include "report/text.h"

namespace winnow::report {

namespace {

// A mean that leaves out what a line does not say.
class Average {
  public:
    void add(double value, double weight = 1.0) {
        if (std::isnan(value) || !(weight > 0)) return;
        sum_ += value * weight;
        weight_ += weight;
    }
    double value() const { return weight_ > 0 ? sum_ / weight_ : kNone; }

  private:
    double sum_ = 0, weight_ = 0;
};

struct Averages {
    Average bytes, peak, full, policy, kept, bits_k, bits_v;
    Average kl, p99, top1, log_ppl, log_full;
    double forced = 0;
    std::size_t count = 0;

    void add(const Line& line) {
        ++count;
        bytes.add(line.kv.bytes);
        peak.add(line.kv.bytes_peak);
        full.add(line.kv.bytes_full_f16);
        policy.add(line.kv.policy_bytes);
        kept.add(line.kv.kept);
        bits_k.add(line.kv.bits_k);
        bits_v.add(line.kv.bits_v);
        if (!line.fidelity) return;
        const Fidelity& f = *line.fidelity;
        const double weight = std::isnan(f.tokens) ? 1.0 : f.tokens;
        kl.add(f.kl_mean, weight);
        p99.add(f.kl_p99);  // a quantile is no sum: the plain mean over texts
        top1.add(f.top1, weight);
        log_ppl.add(std::log(f.ppl), weight);
        log_full.add(std::log(f.ppl_full), weight);
        forced += weight;
    }
};

}  // namespace

Stats::Stats(const Run& run) : run_(&run), scores_(run.configs.size()) {
    for (const Line& line : run.lines) {
        if (std::find(tasks_.begin(), tasks_.end(), line.task) == tasks_.end()) {
            tasks_.push_back(line.task);
        }
        fidelity_ = fidelity_ || line.fidelity.has_value();
        if (std::isnan(line.score)) continue;
        Scores& scores = scores_[line.config][line.task];
        scores.sum += line.score;
        scores.squares += line.score * line.score;
        ++scores.count;
    }
    for (std::size_t i = 0; i < run.configs.size() && full_ < 0; ++i) {
        if (run.configs[i].is_full()) full_ = static_cast<int>(i);
    }
    add_totals();
    add_measures();
}

void Stats::add_totals() {
    std::vector<Averages> averages(run_->configs.size());
    for (const Line& line : run_->lines) averages[line.config].add(line);
    for (const Averages& a : averages) {
        Total total;
        total.count = a.count;
        total.kv = {.bytes = a.bytes.value(),
                    .bytes_peak = a.peak.value(),
                    .bytes_full_f16 = a.full.value(),
                    .policy_bytes = a.policy.value(),
                    .kept = a.kept.value(),
                    .bits_k = a.bits_k.value(),
                    .bits_v = a.bits_v.value()};
        total.fidelity = {.kl_mean = a.kl.value(),
                          .kl_p99 = a.p99.value(),
                          .top1 = a.top1.value(),
                          .ppl = std::exp(a.log_ppl.value()),
                          .ppl_full = std::exp(a.log_full.value()),
                          .tokens = a.forced};
        totals_.push_back(total);
    }
}

void Stats::add_measures() {
    if (fidelity_) {
        measures_.push_back({.key = "kl", .label = "KL divergence", .tasks = {}, .kl = true});
    }
    std::vector<std::string> scored;
    for (const std::string& task : tasks_) {
        const bool any = std::any_of(scores_.begin(), scores_.end(),
                                     [&](const auto& tasks) { return tasks.contains(task); });
        if (any) scored.push_back(task);
    }
    if (run_->suite == "needle") {
        for (const std::string& task : scored) {
            const std::string key = task.starts_with("needle_") ? task.substr(7) : task;
            measures_.push_back({.key = slug(key), .label = task_title(task), .tasks = {task}});
        }
    } else if (!scored.empty()) {
        const std::string label =
            scored.size() == 1 ? scored[0] : "mean of " + std::to_string(scored.size()) + " tasks";
        measures_.push_back({.key = "average", .label = label, .tasks = scored});
    }
}

Mean Stats::score(std::size_t config, const std::string& task) const {
    const auto found = scores_[config].find(task);
    if (found == scores_[config].end()) return {};
    const auto n = static_cast<double>(found->second.count);
    Mean mean{.value = found->second.sum / n, .error = kNone, .count = found->second.count};
    if (mean.count > 1) {
        const double spread = found->second.squares - found->second.sum * mean.value;
        mean.error = std::sqrt(std::max(spread, 0.0) / (n - 1) / n);
    }
    return mean;
}

Mean Stats::measure(std::size_t config, const Measure& measure) const {
    if (measure.kl) {
        return {.value = totals_[config].fidelity.kl_mean,
                .error = kNone,
                .count = totals_[config].count};
    }
    Mean total{.value = 0, .error = 0, .count = 0};
    for (const std::string& task : measure.tasks) {
        const Mean mean = score(config, task);
        total.value += mean.value;
        total.error += mean.error * mean.error;
        total.count += mean.count;
    }
    const auto tasks = static_cast<double>(measure.tasks.size());
    total.value /= tasks;
    total.error = std::sqrt(total.error) / tasks;
    return total;
}

double Stats::share(std::size_t config) const {
    return totals_[config].kv.bytes / totals_[config].kv.bytes_full_f16;
}

std::string suite_title(const std::string& suite) {
    if (suite == "needle") return "Needle in a haystack";
    if (suite == "ruler") return "RULER";
    if (suite == "longbench") return "LongBench";
    if (suite == "fidelity") return "Fidelity to the full cache";
    return suite;
}

std::string task_title(const std::string& task) {
    if (task == "needle_sf") return "San Francisco needle";
    if (task == "needle_number") return "number needle";
    return task;
}

}  // namespace winnow::report
