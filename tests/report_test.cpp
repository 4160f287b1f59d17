// `winnow report`: what is read, and what the tables say.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

#include "report/charts.h"
#include "report/stats.h"
#include "report/text.h"
#include "report/trade.h"
#include "report_results.h"

namespace winnow::report {
namespace {

TEST_F(Report, MeansEqualThoseByHand) {
    const EmptyPath no_gnuplot;
    write_needle();
    const Written written = write_report(folder_, folder_ / "out");
    const std::string summary = read("out/needle-summary.csv");
    for (std::size_t c = 0; c < kConfigs.size(); ++c) {
        double sum = 0, squares = 0;
        for (int i = 0; i < 6; ++i) sum += score_of(c, i);
        for (int i = 0; i < 6; ++i) squares += std::pow(score_of(c, i) - sum / 6, 2);
        const std::string& id = kConfigs[c].id;
        EXPECT_NEAR(std::stod(cell(summary, id, "sf_score")), sum / 6, 1e-7) << id;
        EXPECT_NEAR(std::stod(cell(summary, id, "sf_standard_error")), std::sqrt(squares / 5 / 6),
                    1e-7);
        EXPECT_NEAR(std::stod(cell(summary, id, "share_of_full")), share_of(kConfigs[c]), 1e-9);
        EXPECT_EQ(cell(summary, id, "prompts"), "6");
        EXPECT_EQ(written.summary[0]["configs"].size(), kConfigs.size());
    }
    const std::string heat = read("out/needle-sf-heat.csv");
    const auto rows = parse_csv(heat);
    ASSERT_EQ(rows.size(), 1 + 6 * kConfigs.size());
    // full-16 comes first, by depth and then length: prompt 3 is (1024, 0).
    EXPECT_EQ(rows[2],
              (std::vector<std::string>{"full-16", "1024", "0", exact(score_of(0, 3)), "1"}));
}

TEST_F(Report, AverageIsThePlainMeanOfTasks) {
    const EmptyPath no_gnuplot;
    // Task a has one prompt and task b three: the average weighs them alike.
    std::string lines;
    const auto add = [&](const std::string& task, int i, std::size_t c, double score) {
        lines += line_of("ruler", task, task + std::to_string(i), kConfigs[c], score).dump() + "\n";
    };
    for (const std::size_t c : {1U, 4U}) {
        add("vt", 0, c, c == 1 ? 90 : 10);
        for (int i = 0; i < 3; ++i) add("niah_single_1", i, c, c == 1 ? 10.0 * i : 50);
    }
    write("run.json", run_of("ruler", "f2").dump());
    write("results.jsonl", lines);
    write_report(folder_, folder_);
    const std::string tasks = read("ruler-tasks.csv");
    EXPECT_EQ(cell(tasks, "snapkv-128-16", "vt"), "90");
    EXPECT_EQ(cell(tasks, "snapkv-128-16", "niah_single_1"), "10");
    EXPECT_EQ(cell(tasks, "snapkv-128-16", "average"), "50");
    EXPECT_EQ(cell(tasks, "random-128-16", "average"), "30");
    EXPECT_EQ(cell(read("ruler-summary.csv"), "random-128-16", "average_score"), "30");
    EXPECT_NE(read("report.html").find("<b>50.0</b>"), std::string::npos) << "the best is bold";
}

TEST_F(Report, FidelityIsWeightedByTokens) {
    const EmptyPath no_gnuplot;
    std::string lines;
    const auto add = [&](const std::string& prompt, double kl, double tokens, double ppl) {
        Json line = line_of("fidelity", "fidelity", prompt, kConfigs[3], 0);
        line.erase("score");
        line["fidelity"] = {{"kl_mean", kl}, {"kl_p99", 4 * kl}, {"top1", 0.5},
                            {"ppl", ppl},    {"ppl_full", 8.0},  {"tokens", tokens}};
        lines += line.dump() + "\n";
    };
    add("one", 0.1, 100, 8.0);
    add("two", 0.4, 300, 16.0);
    write("results.jsonl", lines);
    write_needle("needle/");
    write("run.json", run_of("fidelity", "f3").dump());
    write_report(folder_, folder_);
    const std::string table = read("fidelity-fidelity.csv");
    EXPECT_NEAR(std::stod(cell(table, "snapkv-512-kivi4", "kl_mean")), 0.325, 1e-9);
    EXPECT_NEAR(std::stod(cell(table, "snapkv-512-kivi4", "kl_p99")), 1.0, 1e-9);
    EXPECT_NEAR(std::stod(cell(table, "snapkv-512-kivi4", "ppl_ratio")), std::pow(2.0, 0.75), 1e-8);
    EXPECT_EQ(cell(table, "snapkv-512-kivi4", "tokens"), "400");
    // The same model's needle run shows it too.
    EXPECT_EQ(cell(read("needle-summary.csv"), "snapkv-512-kivi4", "kl_mean"), "0.325");
    EXPECT_EQ(cell(read("needle-summary.csv"), "full-16", "kl_mean"), "");
}

TEST_F(Report, EqualBytesComparesFormats) {
    const EmptyPath no_gnuplot;
    write_needle();
    write_report(folder_, folder_);
    // 128 tokens at 16 bits and 512 at 4 bits are both an eighth of the full cache.
    const auto rows = parse_csv(read("needle-sf-equal-bytes.csv"));
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[1][0], "snapkv");
    EXPECT_EQ(rows[1][1], "1/8");
    EXPECT_EQ(rows[1][3], "0.125");
    EXPECT_EQ(rows[1][5], "0.125");
}

TEST_F(Report, VariantsAndByteBudgetsStayApart) {
    const EmptyPath no_gnuplot;
    std::string lines;
    const auto add = [&](const std::string& id, Json options, double score) {
        lines += line_of("needle", "needle_sf", "p", {id, std::move(options)}, score).dump() + "\n";
    };
    add("snapkv-512-kivi4-w8", options_of("snapkv", 512, "kivi", 4), 10);
    add("snapkv-512-kivi4-w32", options_of("snapkv", 512, "kivi", 4), 20);
    for (const char* budget : {"24MiB", "8MiB"}) {
        Json options = options_of("full", 0, "none", 0);
        options["kv_budget"] = budget;
        add("full-16-kv_budget" + std::string(budget), options, budget[0] == '8' ? 30 : 40);
    }
    write("results.jsonl", lines);
    write("run.json", run_of("needle", "f9").dump());
    write_report(folder_, folder_);
    const auto rows = parse_csv(read("needle-sf-grid.csv"));
    ASSERT_EQ(rows.size(), 4U);
    EXPECT_EQ(rows[0],
              (std::vector<std::string>{"method", "format", "512 tokens", "8MiB", "24MiB"}));
    EXPECT_EQ(rows[1], (std::vector<std::string>{"mixed", "mixed bits", "", "30", "40"}));
    EXPECT_EQ(rows[2], (std::vector<std::string>{"snapkv", "4 bits, w32", "20", "", ""}));
    EXPECT_EQ(rows[3], (std::vector<std::string>{"snapkv", "4 bits, w8", "10", "", ""}));
}

TEST_F(Report, ShardsMergeAndCountOnce) {
    const EmptyPath no_gnuplot;
    write_needle("whole/");
    for (int shard = 0; shard < 2; ++shard) {
        const std::string tag = "-" + std::to_string(shard) + "-of-2";
        write("shards/run" + tag + ".json", run_of("needle", "f1").dump());
        write("shards/results" + tag + ".jsonl", needle_lines(shard, 2));
    }
    write_report(folder_ / "whole", folder_ / "a");
    const Written merged = write_report(folder_ / "shards", folder_ / "b");
    EXPECT_EQ(read("a/needle-summary.csv"), read("b/needle-summary.csv"));
    EXPECT_EQ(read("a/needle-sf-heat.csv"), read("b/needle-sf-heat.csv"));
    EXPECT_EQ(merged.notes.size(), 1U) << "only that gnuplot is missing";
    EXPECT_EQ(merged.summary[0]["result_files"], 2);
    // The whole run and its shards together are the same prompts again.
    const Results all = read_results(folder_);
    ASSERT_EQ(all.runs.size(), 1U);
    EXPECT_EQ(all.runs[0].lines.size(), 6 * kConfigs.size());
    EXPECT_TRUE(all.notes.empty());
}

TEST_F(Report, FilesWithoutARunAreOneNote) {
    for (int shard = 0; shard < 2; ++shard) {
        write("results-" + std::to_string(shard) + "-of-2.jsonl", needle_lines(shard, 2));
    }
    const Results all = read_results(folder_);
    ASSERT_EQ(all.runs.size(), 1U);
    EXPECT_EQ(all.runs[0].lines.size(), 6 * kConfigs.size());
    ASSERT_EQ(all.notes.size(), 1U);
    EXPECT_NE(all.notes[0].find("2 result files, results-0-of-2.jsonl the first, have no run.json"),
              std::string::npos)
        << all.notes[0];
    // Another version of the program measured something else.
    Json line = line_of("needle", "needle_sf", "sf-512-0", kConfigs[0], 99);
    line["version"] = "0.2.0";
    write("results.jsonl", line.dump() + "\n");
    EXPECT_EQ(read_results(folder_).runs.size(), 2U);
}

// Rouge rarely passes 30: an axis to 100 would squeeze every line into its lowest third.
TEST_F(Report, AxesOfLowScoresEndLower) {
    for (const auto& [most, top] : std::vector<std::pair<double, double>>{
             {9, 10}, {19, 25}, {50, 50}, {51, 100}, {100, 100}}) {
        std::string lines;
        for (std::size_t c = 0; c < kConfigs.size(); ++c) {
            const double score = c == 0 ? most : most / static_cast<double>(c + 1);
            lines += line_of("longbench", "multi_news", "a", kConfigs[c], score).dump() + "\n";
        }
        write("run.json", run_of("longbench", "f").dump());
        write("results.jsonl", lines);
        const Results all = read_results(folder_);
        const Stats stats(all.runs.at(0));
        const auto charts = trade_charts(stats, stats.measures().at(0));
        ASSERT_FALSE(charts.empty());
        for (const LineChart& chart : charts) EXPECT_EQ(chart.y_high, top) << chart.title;
    }
}

TEST_F(Report, LogarithmicAxesHugTheirValues) {
    using Ends = std::pair<double, double>;
    for (const auto& [values, ends] : std::vector<std::pair<Ends, Ends>>{{{0.108, 1.73}, {0.1, 2}},
                                                                         {{0.25, 0.9}, {0.2, 1}},
                                                                         {{0.5, 0.5}, {0.5, 1}},
                                                                         {{0.2, 10}, {0.2, 10}},
                                                                         {{2e-5, 0.33}, {1e-5, 1}},
                                                                         {{0.3, 70}, {0.1, 100}}}) {
        const auto [low, high] = log_axis(values.first, values.second);
        EXPECT_NEAR(low / ends.first, 1, 1e-9) << values.first << " " << values.second;
        EXPECT_NEAR(high / ends.second, 1, 1e-9) << values.first << " " << values.second;
    }
    const auto script = [](double low, double high) {
        LineChart chart;
        chart.log_y = true;
        chart.y_low = low;
        chart.y_high = high;
        chart.series.emplace_back();
        chart.series.back().points = {{0.5, low, 0}, {1.0, high, 0}};
        return line_figure("name", chart).script;
    };
    EXPECT_NE(script(0.2, 2).find("('0.2' 0.2, '0.5' 0.5, '1' 1, '2' 2)"), std::string::npos)
        << script(0.2, 2);
    EXPECT_NE(script(1e-5, 0.01).find("('1e-5' 1e-05, '1e-4' 0.0001, '0.001' 0.001, '0.01'"),
              std::string::npos)
        << script(1e-5, 0.01);
}

TEST_F(Report, RunsNeverMix) {
    write_needle();
    write("run-2/run.json", run_of("needle", "another").dump());
    write("run-2/results.jsonl", needle_lines());
    const Results all = read_results(folder_);
    ASSERT_EQ(all.runs.size(), 2U);
    EXPECT_EQ(all.runs[0].lines.size(), all.runs[1].lines.size());
}

TEST_F(Report, ContradictionsAreNoted) {
    write_needle();
    Json line = line_of("needle", "needle_sf", "sf-512-0", kConfigs[0], 99);
    line["depth"] = 0;
    line["reply"] = "another";
    write("more/run.json", run_of("needle", "f1").dump());
    write("more/results.jsonl", line.dump() + "\n");
    const Results all = read_results(folder_);
    ASSERT_EQ(all.notes.size(), 1U);
    EXPECT_NE(all.notes[0].find("sf-512-0"), std::string::npos) << all.notes[0];
    EXPECT_EQ(all.runs[0].lines.size(), 6 * kConfigs.size());
}

TEST_F(Report, TornAndDamagedLines) {
    std::string lines = needle_lines();
    write("run.json", run_of("needle", "f1").dump());
    write("results.jsonl", lines + lines.substr(0, 200));
    Results torn = read_results(folder_);
    EXPECT_TRUE(torn.notes.empty()) << "an unfinished last line is no news";
    EXPECT_EQ(torn.runs[0].lines.size(), 6 * kConfigs.size());

    const std::size_t second = lines.find('\n') + 1;
    lines.insert(second, "{\"suite\":\"needle\",\n");
    lines += R"({"task":"needle_sf","prompt":"x","config":"full-16","score":1})"
             "\n";
    lines += R"({"task":"needle_sf","prompt":"x","config":"full-16","score":300,)"
             R"("kv":{"bytes":1,"bytes_full_f16":1}})"
             "\n[1]\n";
    write("results.jsonl", lines);
    const Results damaged = read_results(folder_);
    ASSERT_EQ(damaged.notes.size(), 4U);
    EXPECT_EQ(damaged.notes[0], "results.jsonl, line 2 is damaged and left out: it is not JSON.");
    EXPECT_EQ(damaged.notes[1],
              "results.jsonl, line 38 is damaged and left out: \"kv.bytes\" is missing.");
    EXPECT_NE(damaged.notes[2].find("line 39"), std::string::npos);
    EXPECT_NE(damaged.notes[2].find("score"), std::string::npos);
    EXPECT_NE(damaged.notes[3].find("line 40"), std::string::npos);
    EXPECT_EQ(damaged.runs[0].lines.size(), 6 * kConfigs.size());
}

TEST_F(Report, RingsAndSumsAreBytesOfTheCache) {
    Json line = line_of("needle", "needle_sf", "sf-512-0", kConfigs[1], 50.0);
    line["kv"]["bytes"] = 100000;
    line["kv"]["policy_bytes"] = 50000;
    write("run.json", run_of("needle", "f1").dump());
    write("results.jsonl", line.dump() + "\n");
    const Results results = read_results(folder_);
    ASSERT_EQ(results.runs.size(), 1U);
    ASSERT_EQ(results.runs[0].lines.size(), 1U);
    EXPECT_DOUBLE_EQ(results.runs[0].lines[0].kv.bytes, 150000.0);
    EXPECT_DOUBLE_EQ(results.runs[0].lines[0].kv.policy_bytes, 50000.0);
}

std::string error_of(const fs::path& folder, const fs::path& out) {
    try {
        write_report(folder, out);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::failure);
        return error.what();
    }
    return "no error";
}

TEST_F(Report, FoldersThatCannotBeUsed) {
    const auto says = [&](const fs::path& folder, const fs::path& out, const std::string& part) {
        const std::string message = error_of(folder, out);
        EXPECT_NE(message.find(part), std::string::npos) << message;
    };
    says(folder_ / "nowhere", folder_, "There is no folder");
    says(folder_, folder_, "No results*.jsonl");
    write("results.jsonl", "{\n");
    says(folder_, folder_, "No line of 1 result file");
    says(folder_ / "results.jsonl", folder_, "is not a folder");
    write_needle();
    write("file", "");
    says(folder_, folder_ / "file", "Cannot make the folder");
    EXPECT_FALSE(fs::exists(folder_ / "report.html"));
}

}  // namespace
}  // namespace winnow::report
