// winnow report: the results of `winnow eval` as a page, charts and CSV.
#include "report/report.h"

#include <winnow/winnow.h>

#include "commands.h"
#include "flags.h"
#include "json_output.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

constexpr std::size_t kMostNotes = 4;

// The one word that is no flag and no flag's value: the folder.
std::string take_folder(Arguments& args) {
    std::string folder;
    for (std::size_t i = 0; i < args.size(); ++i) {
        if (args[i] == "--out") {
            ++i;
        } else if (!args[i].starts_with("-")) {
            if (!folder.empty()) {
                throw usage_error("`winnow report` takes one folder, but there are '" + folder +
                                  "' and '" + args[i] + "'.");
            }
            folder = args[i];
            args.erase(args.begin() + static_cast<std::ptrdiff_t>(i--));
        }
    }
    return folder;
}

void show_notes(const std::vector<std::string>& notes) {
    for (std::size_t i = 0; i < notes.size() && i < kMostNotes; ++i) {
        write_err("winnow: " + notes[i] + "\n");
    }
    if (notes.size() > kMostNotes) {
        write_err("winnow: ... and " + std::to_string(notes.size() - kMostNotes) +
                  " more; the page lists all of them.\n");
    }
}

}  // namespace

int report_command(const Arguments& args) {
    Options options;
    std::string out;
    auto parser = make_parser("report",
                              "Writes report.html, charts (SVG, PNG) and CSV from the results of "
                              "`winnow eval` below a folder: winnow report DIR.",
                              options, 0);
    add_value(*parser, "Output", {"--out", "DIR", "where to write; by default beside the results"},
              out);
    add_switch(*parser, "--json", options.json, "the summary as one JSON object on stdout");
    Arguments flags = args;
    const std::string folder = take_folder(flags);
    if (!parse(*parser, flags)) return 0;
    if (folder.empty()) {
        throw usage_error(
            "`winnow report` needs a folder: winnow report DIR, the --save-dir of `winnow eval`.");
    }
    const report::Written written = report::write_report(folder, out.empty() ? folder : out);
    show_notes(written.notes);
    if (options.json) {
        write_json({{"version", version()},
                    {"report", written.page.string()},
                    {"files", written.files},
                    {"notes", written.notes},
                    {"runs", written.summary}});
    } else {
        write_out(written.page.string() + " and " + std::to_string(written.files.size() - 1) +
                  " files beside it\n");
        flush_out();
    }
    return 0;
}

}  // namespace winnow::cli
