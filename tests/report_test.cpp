// `winnow report`: what is read, what the tables say, and that the files are sound. The results are
// made here, in the form that `winnow eval` writes.
#include "report/report.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <winnow/error.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>

#include "report/files.h"
#include "report/gnuplot.h"
#include "report/heat.h"
#include "report/kept_page.h"
#include "report/stats.h"
#include "report/text.h"
#include "support/tiny_gguf.h"

namespace winnow::report {
namespace {

namespace fs = std::filesystem;

Json options_of(const std::string& method, int cap, const std::string& quant, int bits) {
    return {{"method", method},
            {"max_capacity_prompts", cap},
            {"quant_method", quant},
            {"nbits", bits},
            {"nbits_k", 0},
            {"nbits_v", 0},
            {"max_capacity_prompts_ratio", 0.0}};
}

struct TestConfig {
    std::string id;
    Json options;
};

const std::vector<TestConfig> kConfigs{
    {"full-16", options_of("full", 0, "none", 16)},
    {"snapkv-128-16", options_of("snapkv", 128, "none", 16)},
    {"snapkv-512-16", options_of("snapkv", 512, "none", 16)},
    {"snapkv-512-kivi4", options_of("snapkv", 512, "kivi", 4)},
    {"random-128-16", options_of("random", 128, "none", 16)},
    {"random-512-16", options_of("random", 512, "none", 16)},
};

double share_of(const TestConfig& config) {
    const double cap = config.options["max_capacity_prompts"].get<double>();
    const double tokens = cap == 0 ? 1024.0 : cap;
    return tokens / 1024.0 * config.options["nbits"].get<double>() / 16.0;
}

Json line_of(const std::string& suite, const std::string& task, const std::string& prompt,
             const TestConfig& config, double score) {
    return {{"suite", suite},
            {"task", task},
            {"prompt", prompt},
            {"index", 0},
            {"length", 1024},
            {"config", config.id},
            {"options", config.options},
            {"kv",
             {{"bytes", 1e6 * share_of(config)},
              {"bytes_full_f16", 1e6},
              {"policy_bytes", 0},
              {"kept", 100},
              {"bits_k", config.options["nbits"]},
              {"bits_v", config.options["nbits"]}}},
            {"tokens", {{"prompt", 1024}, {"generated", 3}}},
            {"reply", "a reply"},
            {"expected", {"an answer"}},
            {"score", score},
            {"model_sha256", "abc"},
            {"version", "0.1.0"},
            {"seed", 42},
            {"wording", "ours"}};
}

Json run_of(const std::string& suite, const std::string& fingerprint) {
    return {{"schema", 1},
            {"suite", suite},
            {"version", "0.1.0"},
            {"model", {{"name", "Tiny-1M"}, {"architecture", "llama"}, {"sha256", "abc"}}},
            {"seed", 42},
            {"wording", "ours"},
            {"settings", {{"mode", "honest"}, {"s_len", 512}, {"title", "it's"}}},
            {"fingerprint", fingerprint}};
}

// Score of prompt i under configuration c: differs everywhere.
double score_of(std::size_t c, int i) {
    return static_cast<double>((static_cast<int>(c) * 17 + i * 29) % 101);
}

class Report : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() /
                  ("winnow-report-" + std::to_string(getpid()) + "-" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name());
        fs::remove_all(folder_);
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }

    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((folder_ / name).parent_path());
        std::ofstream(folder_ / name, std::ios::binary) << text;
    }
    std::string read(const std::string& name) const { return read_whole(folder_ / name); }

    // A needle run with `lengths` x `depths` prompts; shard `shard` of `shards`.
    static std::string needle_lines(int shard = 0, int shards = 1) {
        std::string text;
        int i = 0;
        for (const int length : {512, 1024}) {
            for (const int depth : {0, 50, 100}) {
                const int mine = i++;
                if (mine % shards != shard) continue;
                const std::string prompt =
                    "sf-" + std::to_string(length) + "-" + std::to_string(depth);
                for (std::size_t c = 0; c < kConfigs.size(); ++c) {
                    Json line =
                        line_of("needle", "needle_sf", prompt, kConfigs[c], score_of(c, mine));
                    line["length"] = length;
                    line["depth"] = depth;
                    text += line.dump() + "\n";
                }
            }
        }
        return text;
    }
    void write_needle(const std::string& folder = "") const {
        write(folder + "run.json", run_of("needle", "f1").dump());
        write(folder + "results.jsonl", needle_lines());
    }

    fs::path folder_;
};

// RFC 4180, strictly: rows of fields, or a failure.
std::vector<std::vector<std::string>> parse_csv(const std::string& text) {
    std::vector<std::vector<std::string>> rows(1, {""});
    bool inside = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        std::string& field = rows.back().back();
        if (inside) {
            if (c != '"')
                field += c;
            else if (i + 1 < text.size() && text[i + 1] == '"')
                field += text[++i];
            else
                inside = false;
        } else if (c == '"') {
            EXPECT_TRUE(field.empty()) << "a quote inside a bare field";
            inside = true;
        } else if (c == ',') {
            rows.back().emplace_back();
        } else if (c == '\r') {
            EXPECT_EQ(text.substr(i, 2), "\r\n");
            ++i;
            rows.push_back({""});
        } else {
            EXPECT_NE(c, '\n') << "a bare line break";
            field += c;
        }
    }
    EXPECT_FALSE(inside);
    EXPECT_EQ(rows.back(), std::vector<std::string>{""}) << "the last row must end";
    rows.pop_back();
    for (const auto& row : rows) EXPECT_EQ(row.size(), rows.front().size());
    return rows;
}

// The column `column` of the row that begins with `key`.
std::string cell(const std::string& csv, const std::string& key, const std::string& column) {
    const auto rows = parse_csv(csv);
    for (const auto& row : rows) {
        if (row.front() != key) continue;
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (rows.front()[i] == column) return row[i];
        }
    }
    return "no row " + key + " or column " + column;
}

int shell(const std::string& command) {
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class EmptyPath {
  public:
    EmptyPath() : old_(std::getenv("PATH")) { setenv("PATH", "", 1); }
    ~EmptyPath() { setenv("PATH", old_.c_str(), 1); }

  private:
    std::string old_;
};

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

TEST_F(Report, HostileTextsStayText) {
    const std::string script = "<script>alert(1)</script>\"'`touch pwned`\x01";
    TestConfig config{"snapkv-128-16\"><img src=x onerror=alert(1)>",
                      options_of("snap'kv`touch pwned`", 128, "none", 16)};
    std::string lines;
    for (int i = 0; i < 4; ++i) {
        config.options["max_capacity_prompts"] = 128 << (i / 2);
        config.id += std::to_string(i / 2);
        Json line = line_of("needle", "needle_" + script, "p" + std::to_string(i), config, 50);
        line["reply"] = script;
        line["depth"] = 10 * i;
        lines += line.dump() + "\n";
    }
    Json run = run_of("needle", "=HYPERLINK(\"x\")");
    run["model"]["name"] = "'; system('touch pwned'); #" + script;
    run["settings"]["note"] = "</pre>" + script;
    write("run.json", run.dump());
    write("results.jsonl", lines);
    const Written written = write_report(folder_, folder_ / "out");
    const std::string page = read("out/report.html");
    EXPECT_EQ(page.find("<script>alert"), std::string::npos);
    EXPECT_EQ(page.find("<img"), std::string::npos);
    EXPECT_NE(page.find("&lt;script&gt;alert(1)"), std::string::npos);
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
        EXPECT_NE(entry.path().filename(), "pwned");
    }
    for (const std::string& name : written.files) {
        EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-."), name.npos)
            << name;
        if (name.ends_with(".csv")) parse_csv(read("out/" + name));
    }
}

TEST_F(Report, WithoutGnuplotTheRestIsWritten) {
    const EmptyPath no_gnuplot;
    write_needle();
    const Written written = write_report(folder_, folder_);
    ASSERT_EQ(written.notes.size(), 1U);
    EXPECT_NE(written.notes[0].find("gnuplot"), std::string::npos);
    const std::string page = read("report.html");
    EXPECT_NE(page.find("class=\"maps\""), std::string::npos) << "heat-maps need no gnuplot";
    EXPECT_EQ(page.find("<svg"), std::string::npos);
    EXPECT_TRUE(fs::exists(folder_ / "needle-sf-bytes.csv"));
    for (const std::string& name : written.files) EXPECT_FALSE(name.ends_with(".svg"));
}

TEST_F(Report, FilesAreSoundAndAlone) {
    if (find_gnuplot().empty()) GTEST_SKIP() << "needs gnuplot (Debian: gnuplot-nox)";
    write_needle();
    const Written written = write_report(folder_, folder_ / "out");
    EXPECT_TRUE(written.notes.empty());
    std::size_t svg = 0, png = 0;
    for (const std::string& name : written.files) {
        const std::string text = read("out/" + name);
        ASSERT_FALSE(text.empty()) << name;
        if (name.ends_with(".csv")) parse_csv(text);
        if (name.ends_with(".png")) {
            ++png;
            EXPECT_EQ(text.substr(1, 3), "PNG");
        }
        if (!name.ends_with(".svg") && !name.ends_with(".html")) continue;
        svg += name.ends_with(".svg") ? 1 : 0;
        for (std::size_t at = 0; (at = text.find("http", at)) != text.npos; ++at) {
            const std::size_t begin = text.rfind("xmlns", at);
            EXPECT_TRUE(begin != text.npos && at - begin < 14) << name << " at " << at;
        }
    }
    // Heat-maps of full, snapkv and random; lines of snapkv and of 16 bits.
    EXPECT_EQ(svg, 5U);
    EXPECT_GT(png, 0U);
    const std::string page = read("out/report.html");
    EXPECT_NE(page.find("<svg"), std::string::npos);
    EXPECT_EQ(page.find("<?xml"), page.npos);
    const std::string lines = read("out/needle-sf-bytes-snapkv.svg");
    EXPECT_NE(lines.find("currentColor"), lines.npos);
    EXPECT_EQ(lines.find("black"), lines.npos) << "unreadable in the dark";
    // Nothing is left of the work, and a second report replaces the first.
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "out"), fs::directory_iterator()),
              static_cast<std::ptrdiff_t>(written.files.size()));
    write_report(folder_, folder_ / "out");
    EXPECT_EQ(read("out/report.html"), page);
}

TEST_F(Report, SvgIsXml) {
    if (find_gnuplot().empty()) GTEST_SKIP() << "needs gnuplot (Debian: gnuplot-nox)";
    if (shell("python3 -c 'import xml.parsers.expat' 2>/dev/null") != 0) {
        GTEST_SKIP() << "needs python3 for its XML parser";
    }
    write_needle();
    write_report(folder_, folder_ / "out");
    EXPECT_EQ(shell("cd '" + (folder_ / "out").string() +
                    "' && python3 -c 'import glob, xml.etree.ElementTree as t\n"
                    "names = glob.glob(\"*.svg\")\n"
                    "assert len(names) == 5\n"
                    "for name in names: t.parse(name)'"),
              0);
}

TEST_F(Report, CommandLine) {
    write_needle();
    const std::string binary = WINNOW_BINARY;
    const auto run = [&](const std::string& words) {
        return shell("cd '" + folder_.string() + "' && PATH= '" + binary + "' report " + words +
                     " >out.txt 2>err.txt");
    };
    EXPECT_EQ(run(". --out new/folder --json"), 0);
    const Json summary = Json::parse(read("out.txt"));
    EXPECT_EQ(summary["runs"][0]["configs"].size(), kConfigs.size());
    EXPECT_EQ(summary["runs"][0]["configs"][0]["config"], "full-16");
    EXPECT_TRUE(summary["runs"][0]["configs"][0]["sf_score"].is_number());
    EXPECT_NE(read("err.txt").find("gnuplot"), std::string::npos);
    EXPECT_TRUE(fs::exists(folder_ / "new/folder/report.html"));

    EXPECT_EQ(run("nowhere"), 1);
    EXPECT_EQ(read("out.txt"), "");
    EXPECT_NE(read("err.txt").find("There is no folder nowhere"), std::string::npos);
    EXPECT_EQ(run(""), 2);
    EXPECT_EQ(run("a b"), 2);
    EXPECT_EQ(run(". --bogus"), 2);
    EXPECT_EQ(run("-h"), 0);
    EXPECT_NE(read("out.txt").find("--out"), std::string::npos);
}

// The JSON that a page's script reads.
Json data_of(const std::string& page) {
    const std::string begin = "type=\"application/json\">";
    const std::size_t at = page.find(begin) + begin.size();
    return Json::parse(page.substr(at, page.find("</script>", at) - at));
}

TEST(KeptPage, ColoursByHeadsAndPrecision) {
    KeptPage page;
    page.title = "<b>title";
    page.facts = {"model", "<script>alert(1)</script>"};
    page.pieces = {"</i><script>x", " b", " c", " d"};
    page.layers.resize(2);
    page.layers[0].heads = {{{0, 1}, {16, 4}}, {{0, 3}, {16, 4}}};
    page.layers[1].heads = {{{0, 3}, {16, 2}}, {{0}, {}}};
    const std::string html = kept_html(page);
    // Token 0 is kept by 4 of 4 at 16 bits, 1 by a quarter at 4, 2 by none, 3 by half at 3.
    EXPECT_NE(html.find("<i class=\"k10 p0\">&lt;/i&gt;&lt;script&gt;x</i><i class=\"k3 p2\"> b</i>"
                        "<i class=\"k0 p0\"> c</i><i class=\"k5 p3\"> d</i>"),
              std::string::npos);
    EXPECT_EQ(html.find("<script>alert"), std::string::npos);
    EXPECT_EQ(html.find("http"), std::string::npos);
    const Json data = data_of(html);
    EXPECT_EQ(data["bits"], Json({16.0, 4.0, 2.0}));
    EXPECT_EQ(data["layers"][0]["heads"], Json({"AB..", "A..B"}));
    EXPECT_EQ(data["layers"][1]["heads"], Json({"A..C", "A..."}));
}

TEST_F(Report, InspectWritesAPage) {
    testing::TinyModelOptions options;
    options.tokenizer = testing::TinyTokenizer::byte_bpe;
    testing::write_tiny_gguf((folder_ / "tiny.gguf").string(), options);
    const std::string inspect =
        "cd '" + folder_.string() + "' && '" + WINNOW_BINARY +
        "' inspect -m tiny.gguf -t 1 -p 'a <b> \xc3\xa9 text of some length' "
        "--method snapkv --max-capacity-prompts 12 --window-size 4 --html ";
    ASSERT_EQ(shell(inspect + "kept.html >out.txt 2>err.txt"), 0) << read("err.txt");
    const std::string page = read("kept.html");
    EXPECT_NE(page.find("\xc3\xa9"), std::string::npos) << "a character of two tokens is whole";
    const Json data = data_of(page);
    ASSERT_EQ(data["layers"].size(), 2U);
    for (const Json& layer : data["layers"]) {
        for (const auto& head : layer["heads"]) {
            const auto codes = head.get<std::string>();
            EXPECT_EQ(std::count(codes.begin(), codes.end(), 'A'), 12) << codes;
        }
    }
    EXPECT_EQ(shell(inspect + "no/folder.html >out.txt 2>err.txt"), 1);
    EXPECT_NE(read("err.txt").find("--html names no/folder.html"), std::string::npos);
}

TEST(ReportTexts, HeatColours) {
    EXPECT_EQ(heat_colour(0), "#f0496e");
    EXPECT_EQ(heat_colour(50), "#ebb839");
    EXPECT_EQ(heat_colour(100), "#0cd79f");
    EXPECT_EQ(heat_colour(kNone), "");
}

TEST(ReportTexts, NumbersAndFields) {
    EXPECT_EQ(significant(0.0123456), "0.0123");
    EXPECT_EQ(significant(0.00001234), "1.2e-05");
    EXPECT_EQ(significant(123.4), "123");
    EXPECT_EQ(significant(kNone), "-");
    EXPECT_EQ(human_bytes(1536), "1.50 KiB");
    EXPECT_EQ(with_commas(1234567), "1,234,567");
    EXPECT_EQ(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
    EXPECT_EQ(csv_field("=1+1"), "'=1+1");
    EXPECT_EQ(csv_field("-1.5e-05"), "-1.5e-05");
    EXPECT_EQ(shortened("\xc3\xa9\xc3\xa9\xc3\xa9", 2), "\xc3\xa9\xc3\xa9...");
    EXPECT_EQ(slug("Qwen2.5 (0.5B)!"), "qwen2-5-0-5b");
}

}  // namespace
}  // namespace winnow::report
