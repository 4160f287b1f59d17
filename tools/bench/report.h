// What `winnow bench` writes: a table, JSON, CSV and the lines of a chart.
#pragma once

#include <string>
#include <vector>

#include "bench/chart.h"
#include "bench/measure.h"
#include "cli/json_output.h"

namespace winnow::bench {

struct Machine {
    std::string cpu;
    int threads = 0;
    std::string isa;  ///< the instruction set our kernels run on
};
/// This machine, for a loaded model.
Machine this_machine(const Model& model);

struct Report {
    Machine machine;
    RivalInfo rival;  ///< its name is empty without one
    ModelInfo model;
    std::string prompt;  ///< where the tokens came from
    int repeats = 0;
    int decode_tokens = 0;
    std::vector<Result> results;
};

cli::Json machine_json(const Machine& machine);
cli::Json rival_json(const RivalInfo& rival);  ///< null without one
cli::Json report_json(const Report& report);
/// The columns of report_json's results, one line each, a header first.
std::string report_csv(const Report& report);
std::string report_table(const Report& report);
/// Decode tokens per second against context, of the first number of sessions.
Chart report_chart(const Report& report);

}  // namespace winnow::bench
