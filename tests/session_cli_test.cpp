// --session on the command line, and `winnow session inspect`.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "support/ship_program.h"

namespace winnow {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;
using testing::expect_error;
using testing::Program;

class SessionCli : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        program_ = testing::program_with_ships();
        program_->file("other", "Another text. " + testing::ship_text());
    }
    static void TearDownTestSuite() { program_.reset(); }
    static testing::ProgramResult command(const std::string& name, Words more,
                                          const std::string& input = "") {
        Words words{name, "-m", program_->path("tiny.gguf"), "-t", "1"};
        words.insert(words.end(), {"--method", "snapkv", "--max-capacity-prompts", "96"});
        words.insert(words.end(), more.begin(), more.end());
        return program_->run(words, input);
    }
    static Words asked(const std::string& session, const std::string& question, Words more = {}) {
        more.insert(more.begin(), {"-f", program_->path("text"), "-p", question, "-n", "5",
                                   "--ignore-eos", "--session", program_->path(session)});
        return more;
    }
    static Json run_json(const Words& words) {
        Words more = words;
        more.emplace_back("--json");
        const auto result = command("run", more);
        EXPECT_EQ(result.code, 0) << result.err;
        EXPECT_EQ(result.err, "");
        return Json::parse(result.out, nullptr, false);
    }

    static std::unique_ptr<Program> program_;
};

std::unique_ptr<Program> SessionCli::program_;

TEST_F(SessionCli, TheSamePromptIsNotReadAgain) {
    const Json first = run_json(asked("one", "Which?"));
    EXPECT_EQ(first["session"]["saved"], true);
    EXPECT_EQ(first["session"]["restored_tokens"], 0);
    const Json second = run_json(asked("one", "Which?"));
    EXPECT_EQ(second["session"]["saved"], false);
    EXPECT_EQ(second["session"]["restored_tokens"], first["tokens"]["prompt"]);
    for (const char* key : {"text", "logits_hash", "tokens"}) {
        EXPECT_EQ(first[key], second[key]) << key;
    }
    EXPECT_EQ(first["kv"]["bytes"], second["kv"]["bytes"]);
    EXPECT_EQ(run_json({"-p", "x", "-n", "1"})["session"], nullptr);
    const auto shown = command("run", asked("one", "Which?"));
    EXPECT_NE(shown.err.find("tokens restored"), std::string::npos) << shown.err;
}

TEST_F(SessionCli, AnotherQuestionFindsTheText) {
    const Json first = run_json(asked("text.kv", "Which?", {"--question-hidden"}));
    const Json other = run_json(asked("text.kv", "What rained?", {"--question-hidden"}));
    EXPECT_EQ(first["session"]["saved"], true);
    EXPECT_EQ(other["session"]["saved"], false);
    EXPECT_GT(other["session"]["restored_tokens"], 100);
    const Json alone = run_json(asked("fresh.kv", "What rained?", {"--question-hidden"}));
    EXPECT_EQ(other["text"], alone["text"]);
    EXPECT_EQ(other["logits_hash"], alone["logits_hash"]);
}

TEST_F(SessionCli, MistakesAreNamed) {
    run_json(asked("kept", "Which?", {"--pin", "4"}));
    expect_error(command("run", asked("kept", "Who?")), 1, "another prompt");
    Words words = asked("kept", "Which?");
    words[1] = program_->path("other");
    expect_error(command("run", words), 1, "another prompt");
    expect_error(command("run", asked("kept", "Which?", {"--nbits", "4"})), 1, "--quant-method");
    expect_error(command("run", asked("kept", "Which?", {"--pin", "9"})), 2, "--pin");
    EXPECT_EQ(command("run", asked("kept", "Which?", {"--pin", "3"})).code, 0);
    program_->file("broken", "WINNOWKV, but no more");
    expect_error(command("run", asked("broken", "Which?")), 1, "broken");
    expect_error(command("run", {"-p", "x", "--session-ro"}), 2, "--session FILE");
    expect_error(command("run", {"-p", "x", "--prompt-cache", "y"}), 2, "--session FILE");
    expect_error(command("run", {"-p", "x", "-n", "0", "--session", "/no/such/folder/f"}), 1,
                 "/no/such/folder/f");
    EXPECT_EQ(command("run", asked("never", "Which?", {"--session-ro"})).code, 0);
    EXPECT_FALSE(std::filesystem::exists(program_->path("never")));
}

TEST_F(SessionCli, ChatGoesOnWhereItEnded) {
    const Words words{"-n", "4", "--ignore-eos", "--session", program_->path("chat")};
    const auto first = command("chat", words, "Hello there\n/save\n");
    EXPECT_EQ(first.code, 0) << first.err;
    EXPECT_NE(first.err.find("Saved to"), std::string::npos);
    const auto second = command("chat", words, "And now?\n");
    EXPECT_EQ(second.code, 0) << second.err;
    EXPECT_NE(second.err.find("tokens restored"), std::string::npos) << second.err;
    const auto both = command("chat", {"-n", "4", "--ignore-eos"}, "Hello there\nAnd now?\n");
    EXPECT_EQ(both.out, first.out + second.out);
}

TEST_F(SessionCli, InspectTellsWithoutAModel) {
    const Json run = run_json(asked("seen", "Which?", {"--pin", "4"}));
    const auto result = program_->run({"session", "inspect", program_->path("seen"), "--json"});
    ASSERT_EQ(result.code, 0) << result.err;
    const Json info = Json::parse(result.out);
    EXPECT_EQ(info["model"]["sha256"], run["model"]["sha256"]);
    EXPECT_EQ(info["tokens_seen"], run["tokens"]["prompt"]);
    EXPECT_EQ(info["options"]["method"], "snapkv");
    EXPECT_EQ(info["kept"], Json({96.0, 96.0}));
    EXPECT_EQ(info["checksums"], "right");
    EXPECT_EQ(info["pins"], Json({{0, 4}}));
    const auto table = program_->run({"session", "inspect", program_->path("seen")});
    EXPECT_NE(table.out.find("--method snapkv"), std::string::npos) << table.out;
    expect_error(program_->run({"session"}), 2, "inspect FILE");
    expect_error(program_->run({"session", "inspect"}), 2, "needs a file");
    expect_error(program_->run({"session", "inspect", "/no/such"}), 1, "/no/such");
    expect_error(program_->run({"session", "inspect", program_->path("text")}), 1, "not a session");
    EXPECT_EQ(program_->run({"session", "inspect", "-h"}).code, 0);
}

}  // namespace
}  // namespace winnow
