// `winnow report`: the files it writes are sound, stand alone and keep hostile texts as texts.
#include <gtest/gtest.h>
#include <winnow/error.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "report/gnuplot.h"
#include "report/heat.h"
#include "report/kept_page.h"
#include "report/stats.h"
#include "report/text.h"
#include "report_results.h"
#include "support/tiny_gguf.h"

namespace winnow::report {
namespace {

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

// Caches of equal bytes share neither tokens nor bits; a table of both would be empty but for a
// diagonal.
TEST_F(Report, HeatMapsThatWouldLeaveGapsStandSideBySide) {
    if (find_gnuplot().empty()) GTEST_SKIP() << "needs gnuplot (Debian: gnuplot-nox)";
    const auto panels_and_heights = [&](const std::vector<TestConfig>& configs) {
        std::string lines;
        for (const TestConfig& config : configs) {
            for (const int depth : {0, 100}) {
                Json line = line_of("needle", "needle_sf", "p" + std::to_string(depth), config, 50);
                line["depth"] = depth;
                lines += line.dump() + "\n";
            }
        }
        write("run.json", run_of("needle", "equal").dump());
        write("results.jsonl", lines);
        write_report(folder_, folder_ / "out");
        const std::string script = read("out/needle-sf-heat-snapkv.gp");
        std::set<std::string> heights;
        std::size_t panels = 0;
        for (std::size_t at = 0; (at = script.find("set tmargin", at)) != script.npos; ++panels) {
            const std::size_t end = script.find('\n', at);
            heights.insert(script.substr(at, end - at));
            at = end;
        }
        return std::pair(panels, heights.size());
    };
    const TestConfig a{"a", options_of("snapkv", 128, "none", 16)},
        b{"b", options_of("snapkv", 256, "kivi", 8)}, c{"c", options_of("snapkv", 512, "kivi", 4)},
        d{"d", options_of("snapkv", 512, "none", 16)};
    EXPECT_EQ(panels_and_heights({a, b, c}), (std::pair<std::size_t, std::size_t>{3, 1}));
    EXPECT_EQ(panels_and_heights({a, c, d}), (std::pair<std::size_t, std::size_t>{3, 2}));
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
