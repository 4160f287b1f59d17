// bench/baseline.json: the ratios of an earlier run, and what fell since.
#pragma once

#include <string>
#include <vector>

#include "bench/report.h"

namespace winnow::bench {

/// A ratio that fell by more than this share is told.
constexpr double kFall = 0.10;

/// One run that the file remembers.
struct BaselineEntry {
    std::string model;               ///< general.name of the GGUF
    std::vector<std::string> flags;  ///< of `winnow bench`, without the model and the outputs
    cli::Json results;
};

/// Reads the file's entries for a model. Throws a failure Error when it has none.
std::vector<BaselineEntry> read_baseline(const std::string& path, const std::string& model);

/// Puts the ratios of `report` into the file, in place of an entry with the same model and flags.
void save_baseline(const std::string& path, const std::vector<std::string>& flags,
                   const Report& report);

/// What a comparison found.
struct Comparison {
    int compared = 0;
    int missing = 0;                 ///< ratios of the file that this run did not measure
    std::vector<std::string> falls;  ///< a line each
};
Comparison compare(const BaselineEntry& entry, const std::vector<Result>& results);
std::string comparison_text(const Comparison& comparison);

}  // namespace winnow::bench
