// Means over the lines of a run, per configuration and task.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/results.h"

namespace winnow::report {

/// What one chart or column shows: a task, the plain mean of a suite's tasks, or the KL divergence.
struct Measure {
    std::string key;    ///< part of file names: "sf", "average", "kl"
    std::string label;  ///< "Needle, San Francisco: score"
    std::vector<std::string> tasks;
    bool kl = false;  ///< lower is better, on a logarithmic axis
};

/// Mean scores are plain means over prompts; fidelity is weighted by the tokens forced.
struct Mean {
    double value = kNone;
    double error = kNone;  ///< standard error; none for fewer than two prompts
    std::size_t count = 0;
};

class Stats {
  public:
    explicit Stats(const Run& run);

    const Run& run() const { return *run_; }
    const std::vector<std::string>& tasks() const { return tasks_; }
    const std::vector<Measure>& measures() const { return measures_; }

    Mean score(std::size_t config, const std::string& task) const;
    /// The plain mean of the tasks' means. None where a task is missing.
    Mean measure(std::size_t config, const Measure& measure) const;
    /// Of all lines; `kv` holds means over prompts.
    const KvSize& kv(std::size_t config) const { return totals_[config].kv; }
    double share(std::size_t config) const;  ///< bytes of all prompts over those of the full cache
    std::size_t prompts(std::size_t config) const { return totals_[config].count; }
    Fidelity fidelity(std::size_t config) const { return totals_[config].fidelity; }
    /// The place of the configuration that keeps all at 16 bits, or -1.
    int full() const { return full_; }
    bool has_fidelity() const { return fidelity_; }

  private:
    struct Scores {
        double sum = 0, squares = 0;
        std::size_t count = 0;
    };
    struct Total {
        KvSize kv;
        Fidelity fidelity;
        std::size_t count = 0;
    };
    void add_totals();
    void add_measures();

    const Run* run_;
    std::vector<std::string> tasks_;  // in the order of the file
    std::vector<Measure> measures_;
    std::vector<std::map<std::string, Scores>> scores_;  // by config
    std::vector<Total> totals_;
    int full_ = -1;
    bool fidelity_ = false;
};

/// "Needle in a haystack", "RULER", ...
std::string suite_title(const std::string& suite);
/// "San Francisco" for needle_sf; others as they are.
std::string task_title(const std::string& task);

}  // namespace winnow::report
