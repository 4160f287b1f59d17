// RULER's samples as files, ours and the official ones, and the question tasks' sources.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "eval/datasets/json_file.h"
#include "eval/datasets/ruler.h"
#include "support/dataset_files.h"
#include "support/test_files.h"

namespace winnow::eval {
namespace {

using testing::error_text;
using testing::fresh_folder;
using testing::read_file;
using testing::write_file;

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

Dataset generate(std::vector<std::string> tasks, bool chat_template = true) {
    RulerOptions options;
    options.tasks = std::move(tasks);
    options.length = 1024;
    options.samples = 4;
    options.chat_template = chat_template;
    return generate_ruler(options, testing::piece_tokenizer());
}

void expect_equal(const Sample& a, const Sample& b) {
    EXPECT_EQ(a.task, b.task);
    EXPECT_EQ(a.index, b.index);
    EXPECT_EQ(a.input, b.input);
    EXPECT_EQ(a.answer_prefix, b.answer_prefix);
    EXPECT_EQ(a.outputs, b.outputs);
    EXPECT_EQ(a.length, b.length);
    EXPECT_EQ(a.max_new_tokens, b.max_new_tokens);
    EXPECT_EQ(a.chat_template, b.chat_template);
}

TEST(RulerFiles, WhatIsWrittenIsReadBack) {
    for (const bool chat_template : {true, false}) {
        const std::string folder = fresh_folder("ruler_written") + "/deep/er";
        const Dataset made =
            generate({"niah_single_1", "niah_multikey_3", "vt", "cwe", "fwe"}, chat_template);
        const std::vector<std::string> paths = write_ruler(folder, made.samples, made.wording);
        EXPECT_EQ(paths.size(), 5U);
        EXPECT_EQ(std::count(paths.begin(), paths.end(), folder + "/cwe.jsonl"), 1);
        const Dataset back = load_ruler(folder, {}, 0, chat_template);
        EXPECT_EQ(back.wording, "ours");
        ASSERT_EQ(back.samples.size(), made.samples.size());
        for (std::size_t i = 0; i < made.samples.size(); ++i) {
            expect_equal(back.samples[i], made.samples[i]);
        }
        const Dataset some = load_ruler(folder, {"vt"}, 2, chat_template);
        ASSERT_EQ(some.samples.size(), 2U);
        expect_equal(some.samples[1], made.samples[9]);
        EXPECT_EQ(load_ruler(folder + "/fwe.jsonl", {}, 0, chat_template).samples.size(), 4U);
        // The form of the official files.
        read_jsonl(folder + "/vt.jsonl", [&](const Json& row, const std::string&) {
            EXPECT_TRUE(row["index"].is_number() && row["outputs"].is_array() &&
                        row["length"].is_number());
            EXPECT_TRUE(has(row["input"], "in the end? Answer: 5 variables"));
            return true;
        });
    }
}

TEST(RulerFiles, OpeningsOfOfficialPromptsAreSplitOff) {
    const std::string folder = fresh_folder("ruler_openings");
    const auto load = [&](const Json& row, bool chat_template) {
        write_file(folder + "/vt.jsonl", row.dump());
        return load_ruler(folder, {}, 0, chat_template).samples.at(0);
    };
    const auto row = [](const std::string& input) {
        return Json{{"index", 7}, {"input", input}, {"outputs", {"A", "B"}}, {"length", 99}};
    };
    const std::string vt = "A list.\nQuestion: Find all. Answer: The variables, they are: ";
    Sample sample = load(row(vt), true);
    EXPECT_EQ(sample.input, "A list.\nQuestion: Find all.");
    EXPECT_EQ(sample.answer_prefix, "Answer: The variables, they are:");
    EXPECT_EQ(sample.index, 7);
    EXPECT_EQ(sample.length, 99);
    EXPECT_EQ(sample.max_new_tokens, 30);
    sample = load(row(vt), false);  // raw prompts stay as they are, to the last space
    EXPECT_EQ(sample.input, vt);
    EXPECT_EQ(sample.answer_prefix, "");
    sample = load(row("Text? yes.\nWhat is X? The X is"), true);
    EXPECT_EQ(sample.input, "Text? yes.\nWhat is X?");
    EXPECT_EQ(sample.answer_prefix, "The X is");
    sample = load(row("Q\nAnswer:"), true);
    EXPECT_EQ(sample.answer_prefix, "Answer:");
    sample = load(row("A question? Then a line.\nNo opening here?"), true);
    EXPECT_EQ(sample.input, "A question? Then a line.\nNo opening here?");
    EXPECT_EQ(sample.answer_prefix, "");
    // Newer files hold the opening apart.
    Json apart = row("What is X?");
    apart["gen_prefix"] = "The X is";
    EXPECT_EQ(load(apart, true).answer_prefix, "The X is");
    EXPECT_EQ(load(apart, true).input, "What is X?");
    EXPECT_EQ(load(apart, false).input, "What is X? The X is");
    apart["answer_prefix"] = " Answer: X is";
    EXPECT_EQ(load(apart, true).answer_prefix, "Answer: X is");
    EXPECT_EQ(load(apart, false).input, "What is X? Answer: X is");
}

TEST(RulerFiles, FoldersAndErrors) {
    const std::string folder = fresh_folder("ruler_folders");
    const auto message = [&](const std::string& path, std::vector<std::string> tasks = {}) {
        return error_text([&] { load_ruler(path, tasks, 0, true); });
    };
    const std::string good = R"({"input": "x?", "outputs": ["A"]})";
    EXPECT_TRUE(has(message(folder), "has no RULER samples"));
    EXPECT_TRUE(has(message(folder + "/no"), "are missing"));
    EXPECT_TRUE(has(message(folder, {"vt"}), "vt.jsonl with its samples belongs in '" + folder));
    EXPECT_TRUE(has(message(folder, {"x"}), "usage: 'x' is no RULER task"));
    write_file(folder + "/qa_1/validation.jsonl", good + "\n" + good);
    const Dataset found = load_ruler(folder, {}, 0, true);
    EXPECT_EQ(found.wording, "official");
    EXPECT_EQ(found.samples.at(1).task, "qa_1");
    EXPECT_EQ(found.samples.at(1).index, 1);
    write_file(folder + "/qa_1_4096.jsonl", good);
    EXPECT_TRUE(has(message(folder), "There are two files of RULER's qa_1"));
    EXPECT_EQ(message(folder + "/qa_1_4096.jsonl"), "");
    write_file(folder + "/other.jsonl", good);
    EXPECT_TRUE(has(message(folder + "/other.jsonl"), "starts with no RULER task"));

    const std::string lines = fresh_folder("ruler_lines");
    const std::pair<const char*, const char*> cases[] = {
        {"", "vt.jsonl' has no samples"},
        {"{", "vt.jsonl, line 1 is no JSON"},
        {R"({"outputs": ["A"]})", "line 1: the field \"input\" is missing"},
        {R"({"input": "x"})", "\"outputs\" is missing"},
        {R"({"input": "x", "outputs": []})", "\"outputs\" is empty"},
        {R"({"input": "x", "outputs": "A"})", "list of texts"},
        {R"({"input": "x", "outputs": ["A"], "index": "1"})", "\"index\" is \"1\""},
        {R"({"input": "x", "outputs": ["A"], "answer_prefix": 1})", "\"answer_prefix\" is of"},
        {"{\"input\": \"x\", \"outputs\": [\"A\"]}\n"
         "{\"input\": \"x\", \"outputs\": [\"A\"], \"wording\": \"ours\"}",
         "line 2 is in ours wording and others are in official"},
    };
    for (const auto& [text, complaint] : cases) {
        write_file(lines + "/vt.jsonl", text);
        EXPECT_TRUE(has(message(lines), complaint)) << message(lines);
    }
    write_file(lines + "/file", "x");
    const Dataset made = generate({"fwe"});
    EXPECT_TRUE(has(error_text([&] { write_ruler(lines + "/file/x", made.samples, "ours"); }),
                    "cannot be made"));
    std::filesystem::create_directory(lines + "/fwe.jsonl");
    EXPECT_TRUE(has(error_text([&] { write_ruler(lines, made.samples, "ours"); }),
                    "fwe.jsonl' cannot be written"));
    EXPECT_FALSE(std::filesystem::exists(lines + "/fwe.jsonl.part"));
}

TEST(RulerFiles, RandomDamageIsAnErrorOrASample) {
    const std::string path = fresh_folder("ruler_fuzz") + "/niah_single_1.jsonl";
    const std::string good =
        R"({"index": 3, "input": "a? b\u00e9", "outputs": ["c"], "length": 9, "answer_prefix": "b"})"
        "\n";
    std::mt19937 random(3);
    int refused = 0;
    for (int round = 0; round < 400; ++round) {
        std::string text = good + good;
        for (auto edits = 1 + random() % 3; edits > 0; --edits) {
            text[random() % text.size()] = static_cast<char>(random());
        }
        write_file(path, text);
        const std::string message = error_text([&] { load_ruler(path, {}, 0, random() % 2 == 0); });
        refused += message.empty() ? 0 : 1;
        EXPECT_TRUE(message.empty() || has(message, "niah_single_1.jsonl")) << message;
    }
    EXPECT_GT(refused, 100);
    EXPECT_LT(refused, 400);
}

TEST(RulerFiles, ReadsTheOfficialFile) {
    const std::string path = testing::find_data("ruler/niah_multikey_3_4096.jsonl");
    if (path.empty()) {
        GTEST_SKIP() << testing::missing_data("ruler/niah_multikey_3_4096.jsonl");
    }
    const Dataset chat = load_ruler(path, {}, 0, true);
    const Dataset raw = load_ruler(path, {"niah_multikey_3"}, 0, false);
    ASSERT_EQ(chat.samples.size(), 100U);
    EXPECT_EQ(chat.wording, "official");
    for (std::size_t i = 0; i < 100; ++i) {
        const Sample& sample = chat.samples[i];
        EXPECT_EQ(sample.index, static_cast<int>(i));
        EXPECT_EQ(raw.samples[i].input, sample.input + " " + sample.answer_prefix);
        EXPECT_TRUE(sample.answer_prefix.starts_with("The special magic uuid for "));
        EXPECT_TRUE(sample.input.ends_with(" mentioned in the provided text?"));
        ASSERT_EQ(sample.outputs.size(), 1U);
        EXPECT_TRUE(has(sample.input, sample.outputs[0]));
        EXPECT_EQ(sample.max_new_tokens, 128);
    }
}

// ---- qa_1 and qa_2 ----

Json squad(int articles, int paragraphs) {
    Json data = Json::array();
    for (int a = 0; a < articles; ++a) {
        Json list = Json::array();
        for (int p = 0; p < paragraphs; ++p) {
            const std::string id = std::to_string(a) + "x" + std::to_string(p);
            list.push_back(
                {{"context", "Paragraph " + id + " says many words about thing " + id + "."},
                 {"qas",
                  {{{"question", "What of " + id + "?"},
                    {"answers", {{{"text", "thing " + id}}, {{"text", "many words"}}}},
                    {"is_impossible", false}},
                   {{"question", "None?"}, {"answers", Json::array()}, {"is_impossible", true}}}}});
        }
        data.push_back({{"title", "T"}, {"paragraphs", list}});
    }
    return {{"version", "v2.0"}, {"data", data}};
}

RulerOptions qa_options(const std::string& task, const std::string& file) {
    RulerOptions options;
    options.tasks = {task};
    options.samples = 6;
    options.length = 600;
    (task == "qa_1" ? options.squad_file : options.hotpotqa_file) = file;
    return options;
}

TEST(RulerQuestions, SquadAndItsDistractors) {
    const std::string file = fresh_folder("ruler_squad") + "/dev.json";
    write_file(file, squad(20, 5).dump());
    const RulerOptions options = qa_options("qa_1", file);
    const Dataset found = generate_ruler(options, testing::piece_tokenizer());
    ASSERT_EQ(found.samples.size(), 6U);
    std::vector<std::size_t> places;
    for (const Sample& sample : found.samples) {
        const std::string id = "0x" + std::to_string(sample.index);
        if (sample.index < 5) {
            EXPECT_EQ(sample.outputs, (std::vector<std::string>{"thing " + id, "many words"}));
            EXPECT_TRUE(has(sample.input, "Paragraph " + id + " says"));
            EXPECT_TRUE(sample.input.ends_with("Question: What of " + id + "?"));
            places.push_back(sample.input.find("Paragraph " + id));
            // Paragraphs of the same article come before others.
            EXPECT_TRUE(has(sample.input, "Paragraph 0x4 says"));
        }
        EXPECT_EQ(sample.answer_prefix, "Answer:");
        EXPECT_LE(sample.length, 600);
        EXPECT_GE(sample.length, 560);
        EXPECT_EQ(sample.max_new_tokens, 32);
    }
    std::sort(places.begin(), places.end());
    EXPECT_GT(places.back() - places.front(), 300U);  // not always at the same depth
    RulerOptions large = options;
    large.length = 100000;  // all hundred paragraphs, once each
    const Sample whole = generate_ruler(large, testing::piece_tokenizer()).samples[0];
    EXPECT_TRUE(has(whole.input, "Document 100:") && !has(whole.input, "Document 101:"));
}

TEST(RulerQuestions, HotpotQa) {
    const std::string file = fresh_folder("ruler_hotpot") + "/dev.json";
    Json rows = Json::array();
    for (int i = 0; i < 30; ++i) {
        const std::string id = std::to_string(i);
        Json context = Json::array();
        for (const char* side : {"a", "b"}) {
            context.push_back({"Title " + id + side, {"One of " + id + side + ". ", "Two."}});
        }
        rows.push_back({{"question", "Q" + id + "?"}, {"answer", "A" + id}, {"context", context}});
    }
    write_file(file, rows.dump());
    const Dataset found = generate_ruler(qa_options("qa_2", file), testing::piece_tokenizer());
    for (const Sample& sample : found.samples) {
        const std::string id = std::to_string(sample.index);
        EXPECT_EQ(sample.outputs, std::vector<std::string>{"A" + id});
        EXPECT_TRUE(has(sample.input, "Title " + id + "a\nOne of " + id + "a. Two."));
        EXPECT_TRUE(has(sample.input, "Title " + id + "b\n"));
        EXPECT_GE(sample.length, 540);
    }
}

TEST(RulerQuestions, DamagedSourcesAreNamed) {
    const std::string file = fresh_folder("ruler_sources") + "/dev.json";
    const auto message = [&](const std::string& task, const std::string& text) {
        write_file(file, text);
        return error_text(
            [&] { generate_ruler(qa_options(task, file), testing::piece_tokenizer()); });
    };
    EXPECT_TRUE(has(message("qa_1", "{"), "dev.json' is no JSON"));
    EXPECT_TRUE(has(message("qa_1", "[]"), "\"data\" must be a list"));
    EXPECT_TRUE(has(message("qa_1", R"({"data": []})"), "has no answerable question"));
    EXPECT_TRUE(has(message("qa_1", R"({"data": [3]})"), "article 1: the field \"paragraphs\""));
    EXPECT_TRUE(has(message("qa_1", R"({"data": [{"paragraphs": [1]}]})"), "article 1"));
    Json damaged = squad(1, 1);
    damaged["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = "no";
    EXPECT_TRUE(has(message("qa_1", damaged.dump()), "\"is_impossible\" must be"));
    damaged["data"][0]["paragraphs"][0]["qas"] = {1};
    EXPECT_TRUE(has(message("qa_1", damaged.dump()), "article 1"));
    EXPECT_TRUE(has(message("qa_2", "{}"), "must be a list of questions"));
    EXPECT_TRUE(has(message("qa_2", "[]"), "has no answerable question"));
    EXPECT_TRUE(has(message("qa_2", "[1]"), "question 1"));
    EXPECT_TRUE(has(message("qa_2", R"([{"question": "q", "answer": "a", "context": [["t"]]}])"),
                    "question 1: \"context\" must be pairs"));
    std::filesystem::remove(file);
    EXPECT_TRUE(has(
        error_text([&] { generate_ruler(qa_options("qa_1", file), testing::piece_tokenizer()); }),
        "cannot be read: No such file"));
}

}  // namespace
}  // namespace winnow::eval
