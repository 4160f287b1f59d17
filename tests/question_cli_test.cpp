// --pin and --question-hidden on the command line and in evaluations.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "eval/runner.h"
#include "support/ship_program.h"

namespace winnow {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;
using testing::expect_error;
using testing::Program;

class QuestionCli : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        program_ = testing::program_with_ships();
        std::filesystem::create_directories(program_->path("hay"));
        const std::string text = testing::ship_text();
        program_->file("hay/a.txt", text + text + text);
        model_ = Model::load(program_->path("tiny.gguf"), {.threads = 1});
    }
    static void TearDownTestSuite() {
        model_.reset();
        program_.reset();
    }
    static testing::ProgramResult run(const std::string& command, Words more,
                                      const std::string& input = "") {
        more.insert(more.begin(), {command, "-m", program_->path("tiny.gguf"), "-t", "1"});
        return program_->run(more, input);
    }
    static Json inspect(Words more) {
        more.insert(more.begin(), {"-f", program_->path("text"), "--method", "random",
                                   "--max-capacity-prompts", "64", "--json"});
        const testing::ProgramResult result = run("inspect", more);
        EXPECT_EQ(result.code, 0) << result.err;
        return Json::parse(result.out, nullptr, false);
    }
    // Positions that every head of every layer holds.
    static std::set<int> held_by_all(const Json& object) {
        std::set<int> common;
        for (std::size_t at = 0; at < object["tokens"].size(); ++at) common.insert(int(at));
        for (const Json& layer : object["layers"]) {
            for (const Json& head : layer["heads"]) {
                const std::set<int> kept = head["positions"].get<std::set<int>>();
                std::erase_if(common, [&](int at) { return kept.count(at) == 0; });
            }
        }
        return common;
    }
    // Of every head the positions it keeps of the text before the question.
    static std::vector<std::vector<int>> kept_before(const std::string& question,
                                                     const Json& object) {
        const std::string all = text_of(object["tokens"], 0, int(object["tokens"].size()));
        std::vector<std::vector<int>> positions;
        for (const Json& layer : object["layers"]) {
            for (const Json& head : layer["heads"]) {
                std::vector<int>& of_text = positions.emplace_back();
                for (const int at : head["positions"]) {
                    const auto end = text_of(object["tokens"], 0, at + 1).size();
                    if (end <= all.rfind(question)) of_text.push_back(at);
                }
            }
        }
        return positions;
    }
    static std::string text_of(const Json& tokens, int first, int last) {
        std::string text;
        for (int i = first; i < last; ++i) text += model_->piece(tokens[i].get<int>(), true);
        return text;
    }

    static std::unique_ptr<Program> program_;
    static std::shared_ptr<const Model> model_;
};

std::unique_ptr<Program> QuestionCli::program_;
std::shared_ptr<const Model> QuestionCli::model_;

TEST_F(QuestionCli, PinsNameTheSystemPromptFirstTokensAndTexts) {
    const Json object = inspect({"-sys", "Be brief.", "--pin", "system", "--pin", "Ship 7"});
    const std::set<int> held = held_by_all(object);
    const std::string all = text_of(object["tokens"], 0, int(object["tokens"].size()));
    std::string pinned;
    for (const int at : held) pinned += text_of(object["tokens"], at, at + 1);
    EXPECT_TRUE(pinned.starts_with(all.substr(0, all.find("Ship 0")))) << pinned;
    EXPECT_NE(pinned.find("Be brief."), std::string::npos);
    EXPECT_NE(pinned.find("Ship 7"), std::string::npos) << pinned;
    const std::set<int> first = held_by_all(inspect({"--pin", "20"}));
    for (int at = 0; at < 20; ++at) EXPECT_EQ(first.count(at), 1U) << at;
    EXPECT_LT(held_by_all(inspect({})).size(), 20U);
}

TEST_F(QuestionCli, PinsThatCannotHoldExitWith2) {
    const Words base{"-f", program_->path("text"), "-p", "And?", "--method", "snapkv"};
    const auto with = [&](Words more) {
        more.insert(more.begin(), base.begin(), base.end());
        return run("run", more);
    };
    expect_error(with({"--pin", "no such text"}), 2, "no such text");
    expect_error(with({"--pin", ""}), 2, "--pin");
    expect_error(with({"--max-capacity-prompts", "50", "--pin", "90"}), 2, "90 tokens");
    expect_error(with({"--question-mark", "And?"}), 2, "--question-hidden");
    expect_error(with({"--question-hidden", "--question-mark", "Or?"}), 2, "Or?");
    expect_error(run("run", {"-p", "all in one", "--question-hidden"}), 2, "--question-mark");
}

TEST_F(QuestionCli, WhatIsKeptDoesNotDependOnTheQuestion) {
    const auto kept = [&](const std::string& question, const Words& more) {
        Words words{"-p", question, "--method", "snapkv"};
        words.insert(words.end(), more.begin(), more.end());
        return kept_before(question, inspect(words));
    };
    const std::string one = "Which ship was last?", two = "What was the weather on that day like?";
    EXPECT_EQ(kept(one, {"--question-hidden"}), kept(two, {"--question-hidden"}));
    EXPECT_NE(kept(one, {}), kept(two, {}));
    const Words marked{"--question-hidden", "--question-mark", "W"};
    EXPECT_EQ(kept(one, marked), kept(one, {"--question-hidden"}));
}

// A sample of an official RULER file holds text, question and opening in one: --question-mark says
// where the question begins.
TEST_F(QuestionCli, AMarkHidesTheQuestionOfAnOfficialRulerSample) {
    const std::string mark = "What is the special magic number for ";
    const auto kept = [&](const std::string& key, const Words& more) {
        program_->file("sample.txt", "Memorize.\n" + testing::ship_text() + "\n" + mark + key +
                                         " mentioned in the provided text? The special magic "
                                         "number for " +
                                         key + " mentioned in the provided text is");
        Words words{"inspect",  "-f",     program_->path("sample.txt"), "-t", "1",
                    "--method", "snapkv", "--max-capacity-prompts",     "64", "--json"};
        words.insert(words.end(), more.begin(), more.end());
        words.insert(words.begin() + 1, {"-m", program_->path("tiny.gguf")});
        const testing::ProgramResult result = program_->run(words, "");
        EXPECT_EQ(result.code, 0) << result.err;
        return kept_before(mark, Json::parse(result.out, nullptr, false));
    };
    const Words hidden{"--question-hidden", "--question-mark", mark};
    EXPECT_EQ(kept("ship", hidden), kept("a cheerful lighthouse", hidden));
    EXPECT_NE(kept("ship", {}), kept("a cheerful lighthouse", {}));
}

TEST_F(QuestionCli, RunTellsBothPartsAndChatGoesOn) {
    const auto result =
        run("run", {"-f", program_->path("text"), "-p", "Which?", "--method", "snapkv",
                    "--max-capacity-prompts", "64", "--question-hidden", "-n", "3", "--json"});
    ASSERT_EQ(result.code, 0) << result.err;
    const Json object = Json::parse(result.out);
    EXPECT_EQ(object["options"]["question_hidden"], true);
    EXPECT_GT(object["tokens"]["prompt"], 200);
    EXPECT_EQ(object["kv"]["bytes_full_f16"], 4 * 2 * 2 * 32 *
                                                  (object["tokens"]["prompt"].get<int>() +
                                                   object["tokens"]["generated"].get<int>()));
    const auto chat = run("chat",
                          {"-f", program_->path("text"), "-p", "Which?", "--method", "snapkv",
                           "--max-capacity-prompts", "64", "--question-hidden", "-n", "3"},
                          "And the second?\n");
    EXPECT_EQ(chat.code, 0) << chat.err;
    EXPECT_NE(chat.err.find("tokens     "), std::string::npos) << chat.err;
}

class QuestionEval : public QuestionCli {
  protected:
    static eval::Settings settings() {
        eval::Settings s;
        s.haystack = program_->path("hay");
        s.s_len = s.e_len = 600;
        s.depths = 2;
        return s;
    }
    static std::string tail(const eval::Prompt& prompt, int from) {
        std::string text;
        for (std::size_t i = std::size_t(from); i < prompt.tokens.size(); ++i) {
            text += model_->piece(prompt.tokens[i], true);
        }
        return text;
    }
};

TEST_F(QuestionEval, HiddenCachesAreConfigurationsOfTheirOwn) {
    const eval::Suite& suite = eval::find_suite("needle");
    const auto configs =
        eval::make_configs(eval::expand_sweep("method=snapkv; cap=96; question-hidden=0,1", {}),
                           suite, settings(), model_);
    std::vector<std::string> ids;
    for (const eval::Config& config : configs) ids.push_back(config.id);
    EXPECT_EQ(ids, (Words{"full-16", "snapkv-96-16", "snapkv-96-16-hidden", "random-96-16",
                          "random-96-16-hidden"}));
    // Nothing is chosen at 16 bits, but a format may be fitted to what it sees.
    ids.clear();
    for (const eval::Config& config : eval::make_configs(
             eval::expand_sweep("method=full; quant=kivi:16,4; question-hidden=1", {}), suite,
             settings(), model_)) {
        ids.push_back(config.id);
        EXPECT_EQ(config.options.question_hidden, config.id == "full-kivi4-hidden");
    }
    EXPECT_EQ(ids, (Words{"full-16", "full-kivi4-hidden"}));
    const eval::Prompt prompt = suite.open(settings(), model_).make(1);
    EXPECT_TRUE(tail(prompt, prompt.question_at).starts_with("What is the best thing"))
        << tail(prompt, prompt.question_at);
    eval::RunnerOptions options;
    options.pin = {"system", "12"};
    const auto outcomes = eval::run_prompt(model_, configs, prompt, options);
    for (std::size_t i = 0; i < configs.size(); ++i) {
        Session session(model_, configs[i].options);
        session.pin(0, 12);
        const std::span<const std::int32_t> tokens(prompt.tokens);
        if (configs[i].options.question_hidden) {
            session.prefill(tokens.first(prompt.question_at));
            session.prefill(tokens.subspan(prompt.question_at));
        } else {
            session.prefill(tokens);
        }
        for (int n = 0; n < outcomes[i].generated; ++n) {
            const auto logits = session.logits();
            const auto token = static_cast<std::int32_t>(
                std::max_element(logits.begin(), logits.end()) - logits.begin());
            session.decode(token);
        }
        EXPECT_EQ(session.stats().bytes, outcomes[i].stats.bytes) << ids[i];
        EXPECT_EQ(session.stats().tokens_seen, outcomes[i].stats.tokens_seen) << ids[i];
    }
}

TEST_F(QuestionEval, RulerAsksLastAndOthersRefuse) {
    eval::Settings s = settings();
    s.datasets = "niah_single_1,vt,cwe";
    s.s_len = s.e_len = 1900;
    s.max_num_examples = 1;
    const eval::PromptSet set = eval::find_suite("ruler").open(s, model_);
    for (std::size_t i = 0; i < set.ids.size(); ++i) {
        const eval::Prompt prompt = set.make(i);
        ASSERT_GT(prompt.question_at, 100) << prompt.id;
        const std::string question = tail(prompt, prompt.question_at);
        EXPECT_LT(question.size(), 500U) << question;
        EXPECT_NE(question.find_first_of("?."), std::string::npos) << question;
    }
    s = settings();
    s.file = program_->path("text");
    s.s_len = s.e_len = 100;
    s.force_tokens = 8;
    const auto configs =
        eval::make_configs(eval::expand_sweep("method=snapkv; cap=64; question-hidden=1", {}),
                           eval::find_suite("fidelity"), s, model_);
    const eval::Prompt prompt = eval::find_suite("fidelity").open(s, model_).make(0);
    EXPECT_THROW(eval::run_prompt(model_, configs, prompt, {}), Error);
}

// NVIDIA's files hold question and opening in one text; what is hidden begins at the question.
TEST_F(QuestionEval, RulerFilesAskLastToo) {
    std::string noise;
    for (int i = 0; i < 12; ++i) noise += "The grass is green. The sky is blue. ";
    const auto file = [&](const std::string& task, const std::string& asked) {
        program_->file("official/" + task + ".jsonl",
                       eval::OrderedJson{{"index", 0},
                                         {"input", "Memorize.\n" + noise + "\n" + asked},
                                         {"outputs", {"12345"}},
                                         {"length", 400}}
                               .dump() +
                           "\n");
    };
    const std::string niah = "What is the special magic number for ship?", vt = "Question: Find X.";
    std::filesystem::create_directories(program_->path("official"));
    file("niah_single_1", niah + " The special magic number for ship is");
    file("vt", vt + " Answer: They are: ");
    file("qa_1", "Question: Who?\nAnswer:");
    for (const bool raw : {false, true}) {
        eval::Settings s;
        s.data = program_->path("official");
        s.raw_prompts = raw;
        const eval::PromptSet set = eval::find_suite("ruler").open(s, model_);
        ASSERT_EQ(set.ids.size(), 3U);
        const std::vector<std::string> questions{niah, vt, "Question: Who?"};
        const auto configs =
            eval::make_configs(eval::expand_sweep("method=snapkv; cap=96; question-hidden=1", {}),
                               eval::find_suite("ruler"), s, model_);
        for (std::size_t i = 0; i < 3; ++i) {
            eval::Prompt prompt = set.make(i);
            EXPECT_TRUE(tail(prompt, prompt.question_at).starts_with(questions[i]))
                << raw << ": " << tail(prompt, prompt.question_at);
            prompt.max_new_tokens = 2;
            const auto outcomes = eval::run_prompt(model_, configs, prompt, {});
            EXPECT_LT(outcomes[1].stats.bytes, outcomes[0].stats.bytes);
        }
    }
}

}  // namespace
}  // namespace winnow
