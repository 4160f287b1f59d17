#include "report/report.h"

#include <winnow/error.h>

#include <map>
#include <system_error>

#include "report/files.h"
#include "report/gnuplot.h"
#include "report/page.h"
#include "report/text.h"
#include "report/trade.h"

namespace winnow::report {

namespace fs = std::filesystem;

namespace {

// How the files of each run begin: its suite, with the model where a suite comes twice, with a
// number where that is not enough.
std::vector<std::string> file_names(const std::vector<Run>& runs) {
    std::map<std::string, int> suites, taken;
    for (const Run& run : runs) ++suites[slug(run.suite)];
    std::vector<std::string> names;
    for (const Run& run : runs) {
        std::string name = slug(run.suite);
        if (suites[name] > 1) name += "-" + slug(run.model);
        const int times = ++taken[name];
        names.push_back(times == 1 ? name : name + "-" + std::to_string(times));
    }
    return names;
}

void add_heats(RunPage& page) {
    for (const Measure& measure : page.stats.measures()) {
        Heat heat = heat_of(page.stats, measure);
        if (heat.maps.empty()) continue;
        HeatSection section{.title = "Heat-maps, " + measure.label,
                            .heat = std::move(heat),
                            .figures = {},
                            .csv = page.name + "-" + measure.key + "-heat.csv"};
        for (const HeatGrid& grid : section.heat.grids) {
            section.figures.push_back(heat_figure(
                page.name + "-" + measure.key + "-heat-" + slug(grid.method),
                grid.method + ", " + measure.label, page.stats.run(), section.heat, grid));
        }
        page.heats.push_back(std::move(section));
    }
}

void add_charts(RunPage& page) {
    for (const Measure& measure : page.stats.measures()) {
        ChartSection section{.title = measure.label + " against bytes",
                             .figures = {},
                             .csv = page.name + "-" + measure.key + "-bytes.csv"};
        for (const LineChart& chart : trade_charts(page.stats, measure)) {
            section.figures.push_back(line_figure(page.name + "-" + chart.key, chart));
        }
        if (!section.figures.empty()) page.charts.push_back(std::move(section));
    }
}

void add_tables(RunPage& page, const Stats* fidelity) {
    const Stats& stats = page.stats;
    page.summary = summary_table(stats, fidelity);
    if (stats.has_fidelity()) page.tables.push_back(fidelity_table(stats));
    for (const Measure& measure : stats.measures()) {
        if (measure.tasks.size() > 1) page.tables.push_back(task_table(stats));
        Table grid = grid_table(stats, measure);
        if (grid.columns.size() > 3) page.tables.push_back(std::move(grid));
        Table equal = equal_bytes_table(stats, measure);
        if (!equal.rows.empty()) page.tables.push_back(std::move(equal));
    }
}

// A fidelity run of the same model, for the summaries of its other runs.
const Stats* fidelity_of(const std::vector<RunPage>& pages, const RunPage& page) {
    if (page.stats.has_fidelity()) return nullptr;
    for (const RunPage& other : pages) {
        if (other.stats.has_fidelity() && other.stats.run().sha256 == page.stats.run().sha256) {
            return &other.stats;
        }
    }
    return nullptr;
}

Json summary_json(const std::vector<RunPage>& pages) {
    Json runs = Json::array();
    for (const RunPage& page : pages) {
        const Run& run = page.stats.run();
        Json rows = Json::array();
        for (const Row& row : page.summary.rows) {
            Json object = Json::object();
            for (std::size_t i = 0; i < row.cells.size(); ++i) {
                const std::string& raw = row.cells[i].raw;
                Json& field = object[page.summary.columns[i].csv];
                if (page.summary.columns[i].text)
                    field = raw;
                else if (!raw.empty())
                    field = Json::parse(raw);
            }
            rows.push_back(std::move(object));
        }
        runs.push_back(
            {{"suite", run.suite},
             {"model",
              {{"name", run.model}, {"architecture", run.architecture}, {"sha256", run.sha256}}},
             {"version", run.version},
             {"seed", run.seed},
             {"wording", run.wording},
             {"fingerprint", run.fingerprint},
             {"folder", run.folder},
             {"result_files", run.files},
             {"lines", run.lines.size()},
             {"tasks", page.stats.tasks()},
             {"configs", std::move(rows)}});
    }
    return runs;
}

std::vector<Figure*> all_figures(std::vector<RunPage>& pages) {
    std::vector<Figure*> figures;
    for (RunPage& page : pages) {
        for (HeatSection& section : page.heats) {
            for (Figure& figure : section.figures) figures.push_back(&figure);
        }
        for (ChartSection& section : page.charts) {
            for (Figure& figure : section.figures) figures.push_back(&figure);
        }
    }
    return figures;
}

class Writer {
  public:
    Writer(const fs::path& out, Written& written) : out_(out), written_(written) {}

    void add(const std::string& name, const std::string& text) {
        write_whole(out_ / name, text);
        written_.files.push_back(name);
    }
    void add_csv(const RunPage& page, const Table& table) {
        add(page.name + "-" + table.key + ".csv", csv(table));
    }

  private:
    const fs::path& out_;
    Written& written_;
};

void draw_figures(std::vector<RunPage>& pages, const fs::path& out, Written& written) {
    std::vector<Figure*> figures = all_figures(pages);
    if (figures.empty()) return;
    const std::string gnuplot = find_gnuplot();
    if (gnuplot.empty()) {
        written.notes.push_back(
            "gnuplot is not in PATH, so the " + std::to_string(figures.size()) +
            " charts were not drawn (Debian: gnuplot-nox); the page's tables and the CSV files "
            "are complete.");
        return;
    }
    const std::string problem = draw(gnuplot, figures, out);
    if (!problem.empty()) written.notes.push_back(problem);
    for (const Figure* figure : figures) {
        written.files.push_back(figure->name + ".gp");
        if (!figure->svg.empty()) written.files.push_back(figure->name + ".svg");
        if (figure->png) written.files.push_back(figure->name + ".png");
    }
}

}  // namespace

Written write_report(const fs::path& folder, const fs::path& out) {
    Results results = read_results(folder);
    std::error_code code;
    fs::create_directories(out, code);
    if (!fs::is_directory(out)) {
        throw failure("Cannot make the folder " + out.string() + ": " +
                      (code ? code.message() : "a file of this name is there") + ".");
    }
    const std::vector<std::string> names = file_names(results.runs);
    std::vector<RunPage> pages;
    for (std::size_t i = 0; i < results.runs.size(); ++i) {
        pages.push_back({.name = names[i],
                         .title = suite_title(results.runs[i].suite),
                         .stats = Stats(results.runs[i]),
                         .summary = {},
                         .tables = {},
                         .heats = {},
                         .charts = {}});
    }
    Written written;
    written.page = out / "report.html";
    written.notes = std::move(results.notes);
    written.files.emplace_back("report.html");
    Writer writer(out, written);
    for (RunPage& page : pages) {
        add_tables(page, fidelity_of(pages, page));
        add_heats(page);
        add_charts(page);
        writer.add_csv(page, page.summary);
        for (const Table& table : page.tables) writer.add_csv(page, table);
        for (const Measure& measure : page.stats.measures()) {
            writer.add_csv(page, trade_table(page.stats, measure));
            const Table heat = heat_table(page.stats, measure);
            if (!heat.rows.empty()) writer.add_csv(page, heat);
        }
    }
    draw_figures(pages, out, written);
    write_whole(written.page, page_html(pages, written.notes));
    written.summary = summary_json(pages);
    return written;
}

}  // namespace winnow::report
