// Tables of a run, for the page and for CSV alike.
#pragma once

#include <string>
#include <vector>

#include "report/stats.h"

namespace winnow::report {

struct Column {
    std::string title;
    std::string csv;    ///< its name in the CSV file, with the unit
    std::string hint;   ///< shown when the pointer rests on it
    bool text = false;  ///< to the left, and quoted in CSV
};

struct Cell {
    std::string shown;
    std::string raw;    ///< for CSV; all digits
    bool best = false;  ///< in its column and block
};

struct Row {
    std::vector<Cell> cells;
    std::string kind;   ///< "full", "random" or ""
    std::string block;  ///< a heading above the row, where a block begins
};

struct Table {
    std::string key;  ///< part of the file's name
    std::string title;
    std::string caption;  ///< what the numbers are
    std::vector<Column> columns;
    std::vector<Row> rows;
};

/// One line per configuration. `fidelity`, of the same model, adds its KL; may be nullptr.
Table summary_table(const Stats& stats, const Stats* fidelity);
/// A task per column, a method per row, a block per budget and format; full stands first.
Table task_table(const Stats& stats);
/// Methods and formats by tokens kept.
Table grid_table(const Stats& stats, const Measure& measure);
/// What each format reaches at the same share of the full cache, 1/256 to 1/4.
Table equal_bytes_table(const Stats& stats, const Measure& measure);
Table fidelity_table(const Stats& stats);
/// Every cell of every heat-map: configuration, length, depth, mean score, prompts.
Table heat_table(const Stats& stats, const Measure& measure);
/// The points of the charts.
Table trade_table(const Stats& stats, const Measure& measure);

std::string csv(const Table& table);

}  // namespace winnow::report
