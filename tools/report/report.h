// `winnow report`: result files to report.html, charts and CSV.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/results.h"

namespace winnow::report {

struct Written {
    std::filesystem::path page;
    std::vector<std::string> files;  ///< names in the output folder, the page first
    std::vector<std::string> notes;  ///< sentences for the reader: damaged lines, missing tools
    Json summary;                    ///< the runs with one object per configuration
};

/// Reads every result below `folder` and writes the report into `out`, which is made if it is
/// missing. Every file is replaced as a whole. Without gnuplot the charts are left out, and a note
/// says so. Throws a failure Error for a folder without results or one that cannot be written.
Written write_report(const std::filesystem::path& folder, const std::filesystem::path& out);

}  // namespace winnow::report
