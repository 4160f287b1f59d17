// `winnow eval ruler` and `longbench` as a user meets them, over a tiny model and tiny data: they
// run, write samples, go on, split, report, and say what is missing.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "eval/results.h"
#include "support/gguf_refusal.h"
#include "support/program.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

// Replies by prompt and configuration.
std::map<std::string, std::string> replies(const fs::path& folder) {
    std::map<std::string, std::string> all;
    for (const auto& line : eval::read_result_lines(folder)) {
        all[line["prompt"].get<std::string>() + " " + line["config"].get<std::string>()] =
            line["reply"].get<std::string>();
    }
    return all;
}

std::size_t lines(const fs::path& folder) {
    return eval::read_result_lines(folder).size();
}

class EvalSuites : public ::testing::Test {
  protected:
    EvalSuites() {
        testing::write_tiny_gguf(program_.path("tiny.gguf"),
                                 {.tokenizer = testing::TinyTokenizer::byte_bpe});
        fs::create_directories(program_.path("long/config"));
        fs::create_directories(program_.path("essays"));
        program_.file("essays/a.txt", "The harbour was quiet. A boat came in. Nobody saw it. ");
        std::string rows, classes;
        for (int i = 0; i < 3; ++i) {
            const std::string n = std::to_string(i);
            Json row{{"input", "Which ship came " + n + "th?"},
                     {"context", "The ships came home one by one, " + n + " of them at night."},
                     {"answers", {"ship " + n}},
                     {"all_classes", nullptr},
                     {"length", 12}};
            rows += row.dump() + "\n";
            row["all_classes"] = {"Number", "Place"};
            row["answers"] = {"Place"};
            classes += row.dump() + "\n";
        }
        program_.file("long/qasper.jsonl", rows);
        program_.file("long/trec.jsonl", classes);
        program_.file("long/config/dataset2prompt.json",
                      R"({"qasper": "Read: {context}\nAsk: {input}\nSay:", "trec": "{input}"})");
        program_.file("long/config/dataset2maxlen.json", R"({"qasper": 12, "trec": 8})");
    }

    Words eval(const std::string& suite, const std::string& save_dir, const Words& more) const {
        Words words{"eval",       suite,
                    "-m",         program_.path("tiny.gguf"),
                    "-t",         "1",
                    "--sweep",    "method=snapkv; cap=96; quant=kivi:16,4",
                    "--save-dir", program_.path(save_dir)};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    Words ruler(const std::string& save_dir, const Words& more = {}) const {
        Words words = eval("ruler", save_dir,
                           {"--tasks", "niah_single_1,vt", "--s-len", "1250", "--max_num_examples",
                            "2", "--seed", "3"});
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    Words longbench(const std::string& save_dir, const Words& more = {}) const {
        Words words = eval("longbench", save_dir, {"--data", program_.path("long")});
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }
    void expect_runs(const Words& words) const {
        const testing::ProgramResult result = program_.run(words);
        ASSERT_EQ(result.code, 0) << result.err;
    }
    std::string read(const std::string& name) const { return testing::read_file(path(name)); }
    std::string path(const std::string& name) const { return program_.path(name); }

    testing::Program program_;
};

TEST_F(EvalSuites, RulerSamplesAreWrittenAndGiveTheSameRunWhenRead) {
    expect_runs(ruler("made", {"--write-samples", path("samples")}));
    EXPECT_EQ(lines(path("made")), 4U * 4U);  // full, snapkv at 16 and 4 bits, random
    expect_runs(ruler("again", {"--write-samples", path("samples2")}));
    for (const char* task : {"niah_single_1", "vt"}) {
        const std::string name = "samples/" + std::string(task) + ".jsonl";
        const std::string text = read(name);
        EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << name;
        EXPECT_EQ(text, read("samples2/" + std::string(task) + ".jsonl"));
        const Json first = Json::parse(text.substr(0, text.find('\n')));
        for (const char* key : {"index", "input", "outputs", "length"}) {
            EXPECT_TRUE(first.contains(key)) << key;
        }
    }
    Words words = eval("ruler", "read", {"--data", path("samples")});
    expect_runs(words);
    EXPECT_EQ(replies(path("made")), replies(path("read")));
    // Several lengths lie in folders of their own.
    expect_runs(
        ruler("two", {"--e-len", "1350", "--step", "100", "--write-samples", path("both")}));
    EXPECT_EQ(lines(path("two")), 2U * 4U * 4U);
    EXPECT_EQ(read("both/1250/vt.jsonl"), read("samples/vt.jsonl"));
    EXPECT_NE(read("both/1350/vt.jsonl"), "");
}

TEST_F(EvalSuites, RulerGoesOnSplitsAndReports) {
    expect_runs(ruler("whole"));
    const std::string before = read("whole/results.jsonl");
    expect_runs(ruler("whole"));
    EXPECT_EQ(read("whole/results.jsonl"), before);
    // Half a run, with its last line torn, goes on to the same replies.
    fs::create_directories(path("torn"));
    program_.file("torn/run.json", read("whole/run.json"));
    program_.file("torn/results.jsonl", before.substr(0, before.size() / 2));
    expect_runs(ruler("torn"));
    EXPECT_EQ(replies(path("torn")), replies(path("whole")));
    expect_runs(ruler("split", {"--shard", "0/2"}));
    EXPECT_EQ(lines(path("split")), 8U);
    expect_runs(ruler("split", {"--shard", "1/2"}));
    EXPECT_EQ(replies(path("split")), replies(path("whole")));
    expect_runs({"report", path("split")});
    const std::string page = read("split/report.html");
    for (const char* part : {"RULER", "niah_single_1", "vt", "full", "random", "2 shards"}) {
        EXPECT_NE(page.find(part), std::string::npos) << part;
    }
    // Another option is another run.
    const testing::ProgramResult other = program_.run(ruler("whole", {"--raw-prompts"}));
    EXPECT_EQ(other.code, 0);
    EXPECT_NE(other.err.find("run-2"), std::string::npos) << other.err;
    EXPECT_EQ(read("whole/results.jsonl"), before);
}

TEST_F(EvalSuites, LongBenchRunsInOfficialAndOwnWords) {
    expect_runs(longbench("official"));
    const auto all = eval::read_result_lines(path("official"));
    ASSERT_EQ(all.size(), 2U * 3U * 4U);
    for (const auto& line : all) {
        EXPECT_EQ(line["wording"], "official");
        EXPECT_GE(line["score"].get<double>(), 0.0);
        EXPECT_LE(line["score"].get<double>(), 100.0);
        EXPECT_LE(line["tokens"]["generated"].get<int>(), line["task"] == "qasper" ? 12 : 8);
    }
    expect_runs(longbench("split", {"--shard", "1/2"}));
    expect_runs(longbench("split", {"--shard", "0/2"}));
    EXPECT_EQ(replies(path("split")), replies(path("official")));
    expect_runs({"report", path("split")});
    EXPECT_NE(read("split/report.html").find("LongBench"), std::string::npos);
    fs::remove_all(path("long/config"));
    expect_runs(longbench(
        "own", {"--datasets", "qasper", "--max-num-examples", "2", "--sample-method", "random"}));
    const auto own = eval::read_result_lines(path("own"));
    ASSERT_EQ(own.size(), 2U * 4U);
    EXPECT_EQ(own[0]["wording"], "ours");
}

TEST_F(EvalSuites, MissingAndDamagedDataAreSentences) {
    const auto expect = [&](const Words& words, int code, const std::string& part) {
        testing::expect_error(program_.run(words), code, part);
    };
    expect(eval("longbench", "x", {}), 2, "--data");
    expect(eval("longbench", "x", {"--data", path("essays")}), 1, "no LongBench task");
    expect(longbench("x", {"--datasets", "qmsum"}), 1, "qmsum.jsonl");
    expect(longbench("x", {"--datasets", "dureader"}), 2, "dureader");
    expect(longbench("x", {"--prompts", path("essays")}), 1, "dataset2prompt.json");
    program_.file("long/qasper.jsonl", read("long/qasper.jsonl") + "{\"input\": 3}\n");
    expect(longbench("x", {"--datasets", "qasper"}), 1, "qasper.jsonl, line 4");
    expect(eval("ruler", "x", {"--tasks", "niah_single_2", "--s-len", "1250"}), 1, "--haystack");
    expect(eval("ruler", "x", {"--tasks", "qa_1", "--s-len", "1250"}), 1, "dev-v2.0.json");
    expect(eval("ruler", "x", {"--tasks", "qa_2", "--s-len", "1250"}), 1,
           "hotpot_dev_distractor_v1.json");
    expect(ruler("x", {"--word-list", path("nowhere")}), 1, "nowhere");
    expect(ruler("x", {"--data", path("nowhere")}), 1, "nowhere");
    expect(ruler("x", {"--data", path("long"), "--write-samples", path("y")}), 2,
           "--write-samples");
    expect(ruler("x", {"--write-samples", path("essays/a.txt") + "/deep"}), 1, "a.txt");
    expect(ruler("x", {"--s-len", "9000", "--e-len", "9000"}), 2, "9000");
    EXPECT_FALSE(fs::exists(path("x")));  // nothing is begun before the data is there
}

TEST_F(EvalSuites, DamagedResultsAreNotMixedIn) {
    expect_runs(longbench("run", {"--datasets", "trec"}));
    const std::string good = read("run/results.jsonl");
    program_.file("run/run.json", "{\"fingerprint\": ");
    const testing::ProgramResult torn = program_.run(longbench("run", {"--datasets", "trec"}));
    EXPECT_EQ(read("run/results.jsonl"), good);
    EXPECT_TRUE(torn.code == 1 || torn.err.find("run-2") != std::string::npos) << torn.err;
}

}  // namespace
}  // namespace winnow
