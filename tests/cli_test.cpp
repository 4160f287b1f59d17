// The command line as a user meets it: exit codes, what goes to stdout and to stderr, --json.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/program.h"
#include "support/tiny_gguf.h"

namespace {

using Json = nlohmann::json;

using Result = winnow::testing::ProgramResult;
using winnow::testing::expect_error;
using winnow::testing::Program;

// A folder with a tiny model for all tests of this file.
class Cli : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        program_ = std::make_unique<Program>();
        winnow::testing::TinyModelOptions options;
        options.tokenizer = winnow::testing::TinyTokenizer::byte_bpe;
        winnow::testing::write_tiny_gguf(model(), options);
    }
    static void TearDownTestSuite() { program_.reset(); }

    static std::string model() { return program_->path("tiny.gguf"); }
    static std::string file(const std::string& name, const std::string& text) {
        return program_->file(name, text);
    }
    static Result run(const std::vector<std::string>& args, const std::string& input = "") {
        return program_->run(args, input);
    }
    // `winnow <command> -m <tiny model> <more>`.
    static Result with_model(const std::string& command, std::vector<std::string> more,
                             const std::string& input = "") {
        more.insert(more.begin(), {command, "-m", model()});
        return run(more, input);
    }
    static Json run_json(std::vector<std::string> more) {
        more.emplace_back("--json");
        const Result result = with_model("run", std::move(more));
        EXPECT_EQ(result.code, 0) << result.err;
        EXPECT_EQ(result.err, "");
        return Json::parse(result.out, nullptr, false);
    }

    static std::unique_ptr<Program> program_;
};

std::unique_ptr<Program> Cli::program_;

TEST_F(Cli, HelpAndVersionGoToStdout) {
    EXPECT_TRUE(run({"--version"}).out.starts_with("winnow "));
    for (const char* command : {"run", "chat", "inspect", "methods", "info"}) {
        const Result help = run({command, "-h"});
        EXPECT_EQ(help.code, 0);
        EXPECT_NE(help.out.find("--model"), std::string::npos) << command;
        EXPECT_EQ(help.err, "");
        EXPECT_NE(run({"-h"}).out.find(command), std::string::npos);
    }
}

TEST_F(Cli, UsageMistakesExitWith2AndOneMessage) {
    expect_error(run({}), 2, "winnow -h");
    expect_error(run({"rum"}), 2, "'run'");
    expect_error(run({"run", "-p", "hi"}), 2, "-m FILE");
    expect_error(with_model("run", {"--tmep", "1"}), 2, "--temp");
    expect_error(with_model("run", {"-sysx", "1"}), 2, "-sys");
    expect_error(with_model("run", {"stray"}), 2, "'stray'");
    expect_error(with_model("run", {"-p"}), 2, "needs a value");
    expect_error(with_model("run", {"--json=1"}), 2, "--json");
    expect_error(with_model("run", {"-p", "hi", "-sys", "s", "-no-cnv"}), 2, "-no-cnv");
    expect_error(with_model("run", {"-p", "hi", "--json-schema", "{"}), 2, "--json-schema");
    expect_error(with_model("chat", {"-no-cnv"}), 2, "-no-cnv");
}

TEST_F(Cli, NumbersOutOfRangeExitWith2) {
    const std::vector<std::pair<std::string, std::string>> cases{
        {"-n", "-2"},
        {"-n", "x"},
        {"-n", "1.5"},
        {"-n", ""},
        {"-c", "99999999999"},
        {"-c", "-1"},
        {"-t", "-1"},
        {"-b", "0"},
        {"--temp", "nan"},
        {"--temp", "-1"},
        {"--top-p", "1.1"},
        {"--min-p", "-0.1"},
        {"--top-k", "-1"},
        {"--seed", "-2"},
        {"--nbits", "5"},
        {"--nbits-v", "1"},
        {"--nbits", "1e1"},
        {"--nbits", "0"},
        {"--max-capacity-prompts", "0"},
        {"--nbits-k", "5"},
        {"--beta", "x"},
        {"--repeat-penalty", "0"},
        {"--max-capacity-prompts-ratio", "1.5"},
    };
    for (const auto& [flag, value] : cases) {
        SCOPED_TRACE(flag + " " + value);
        expect_error(with_model("run", {"-p", "hi", flag, value}), 2, "");
    }
}

TEST_F(Cli, UnknownNamesGetTheNearest) {
    expect_error(with_model("run", {"-p", "hi", "--method", "snapvk"}), 2, "'snapkv'");
    expect_error(with_model("run", {"-p", "hi", "--quant-method", "kvi"}), 2, "'kivi'");
    expect_error(with_model("run", {"-p", "hi", "--pooling", "maxx"}), 2, "'max'");
    expect_error(with_model("run", {"-p", "hi", "--quant_metod", "kivi"}), 2, "--quant-method");
}

TEST_F(Cli, MissingFilesModelsAndPromptsExitWith1) {
    expect_error(run({"run", "-m", "/no/such.gguf", "-p", "hi"}), 1, "/no/such.gguf");
    expect_error(run({"info", "-m", file("bad.gguf", "GGUF, but not really")}), 1, "bad.gguf");
    expect_error(with_model("run", {"-f", "/no/such.txt"}), 1, "/no/such.txt");
    expect_error(with_model("run", {"-f", "/tmp"}), 1, "folder");
    expect_error(with_model("run", {}), 1, "no prompt");
    expect_error(with_model("run", {"-p", ""}), 1, "no prompt");
    expect_error(with_model("run", {"-f", "-"}), 1, "no prompt");
    expect_error(with_model("run", {"-p", "x", "--grammar-file", "/no/g"}), 1, "/no/g");
}

TEST_F(Cli, PromptLongerThanTheContextExitsWith2) {
    expect_error(with_model("run", {"-p", "a long prompt, really", "-c", "4"}), 2, "");
    expect_error(with_model("run", {"-p", std::string(9000, '.')}), 2, "");
}

TEST_F(Cli, JsonIsOneDocumentedObject) {
    const Json object = run_json({"-p", "hello", "-n", "5", "--ignore-eos"});
    ASSERT_TRUE(object.is_object());
    for (const char* key :
         {"text", "stop", "tokens", "kv", "timing", "logits_hash", "model", "options", "version"}) {
        EXPECT_TRUE(object.contains(key)) << key;
    }
    for (const char* key : {"bytes", "bytes_peak", "bytes_full_f16", "allocated_bytes",
                            "policy_bytes", "prefill_peak_bytes", "kept", "bits_k", "bits_v"}) {
        EXPECT_TRUE(object["kv"].contains(key)) << key;
    }
    for (const char* key :
         {"load_ms", "prefill_ms", "compress_ms", "decode_ms", "prefill_tps", "decode_tps"}) {
        EXPECT_TRUE(object["timing"][key].is_number()) << key;
    }
    EXPECT_EQ(object["tokens"]["generated"], 5);
    const int seen = object["tokens"]["prompt"].get<int>() + 5;
    EXPECT_EQ(object["kv"]["bytes_full_f16"], seen * 4 * 2 * 2 * 32);  // 4 L G D each
    EXPECT_EQ(object["kv"]["kept"], Json({seen, seen}));
    EXPECT_EQ(object["kv"]["lossy"], false);
    EXPECT_EQ(object["model"]["sha256"].get<std::string>().size(), 64U);
    EXPECT_EQ(object["options"]["method"], "full");
    EXPECT_EQ(object["options"]["n_predict"], 5);
    EXPECT_DOUBLE_EQ(object["options"]["top_p"].get<double>(), 0.95);
}

TEST_F(Cli, SpellingsOfFlagsAreAlike) {
    const Json kebab = run_json({"-p", "hello", "-n", "1", "--method", "snapkv",
                                 "--max-capacity-prompts", "64", "--window-size", "8"});
    const Json snake = run_json({"--prompt=hello", "--n_predict=1", "--method=SnapKV",
                                 "--max_capacity_prompt=64", "--window_size", "8"});
    EXPECT_EQ(kebab["options"], snake["options"]);
    EXPECT_EQ(kebab["logits_hash"], snake["logits_hash"]);
    EXPECT_EQ(run_json({"-p", "a", "-n", "0", "--method", "FullKV"})["options"]["method"], "full");
}

TEST_F(Cli, FileComesFirstThenABlankLineThenThePrompt) {
    const std::string path = file("part.txt", "first part");
    const auto hash = [](std::vector<std::string> args) {
        args.insert(args.end(), {"-n", "0", "-no-cnv"});
        return run_json(std::move(args))["logits_hash"];
    };
    const Json joined = hash({"-f", path, "-p", "second"});
    EXPECT_EQ(joined, hash({"-p", "first part\n\nsecond"}));
    EXPECT_EQ(joined, hash({"-e", "-p", "first part\\n\\nsecond"}));
    EXPECT_NE(joined, hash({"-p", "first part\\n\\nsecond"}));
    EXPECT_EQ(joined, hash({"-f", file("line.txt", "first part\n"), "-p", "second"}));
    // The chat template adds to the prompt; -no-cnv does not.
    EXPECT_GT(run_json({"-p", "a", "-n", "0"})["tokens"]["prompt"],
              run_json({"-p", "a", "-n", "0", "-no-cnv"})["tokens"]["prompt"]);
}

TEST_F(Cli, StandardInputAndBracketsAreTakenAsTheyAre) {
    const auto tokens = [](const Result& result) { return Json::parse(result.out)["tokens"]; };
    const Result piped = with_model("inspect", {"-f", "-", "-no-cnv", "--json"}, "[a,b]{}");
    const Result given = with_model("inspect", {"-p", "[a,b]{}", "-no-cnv", "--json"});
    ASSERT_EQ(piped.code, 0) << piped.err;
    ASSERT_EQ(given.code, 0) << given.err;
    EXPECT_EQ(tokens(piped), tokens(given));
    EXPECT_EQ(with_model("run", {"-p", "--x", "-n", "0", "-r", "[END]"}).code, 0);
}

TEST_F(Cli, AnswerGoesToStdoutAndReceiptToStderr) {
    const std::vector<std::string> args{"-p", "hello", "-n", "8", "--ignore-eos"};
    const Result plain = with_model("run", args);
    ASSERT_EQ(plain.code, 0) << plain.err;
    const std::string text = run_json(args)["text"].get<std::string>();
    EXPECT_EQ(plain.out, text.empty() || text.back() == '\n' ? text : text + "\n");
    EXPECT_NE(plain.err.find("tok/s"), std::string::npos);
    EXPECT_NE(plain.err.find("logits "), std::string::npos);
    EXPECT_EQ(plain.err.find("lossy"), std::string::npos);
    const std::vector<std::string> lossy{"-p",
                                         std::string(300, 'x') + " y z",
                                         "-n",
                                         "2",
                                         "--method",
                                         "streamingllm",
                                         "--max-capacity-prompts",
                                         "128",
                                         "--nbits",
                                         "4",
                                         "--compare-full"};
    const Result pruned = with_model("run", lossy);
    ASSERT_EQ(pruned.code, 0) << pruned.err;
    EXPECT_NE(pruned.err.find("lossy"), std::string::npos);
    EXPECT_NE(pruned.err.find("full, 16 bits"), std::string::npos);
    // The packed cache holds two precisions, the full one has no such line.
    EXPECT_NE(pruned.err.find("tokens at"), std::string::npos) << pruned.err;
    // What was given up stands in the one line for comparing too.
    const std::size_t line = pruned.err.find("| logits ");
    ASSERT_NE(line, std::string::npos);
    const std::string rest = pruned.err.substr(line, pruned.err.find('\n', line) - line);
    for (const char* part : {"| dropped ", "worst layer ", " evictions, 0 demotions", "16 bits ",
                             "4 bits ", " KiB)"}) {
        EXPECT_NE(rest.find(part), std::string::npos) << part << " in " << rest;
    }
}

TEST_F(Cli, ReversePromptEndsTheAnswerBeforeIt) {
    const std::vector<std::string> args{"-p", "hello", "-n", "24", "--ignore-eos"};
    const std::string text = run_json(args)["text"].get<std::string>();
    // Any plain character of the answer serves as a reverse prompt.
    const auto at =
        std::find_if(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
    if (at == text.end()) GTEST_SKIP() << "the tiny model wrote no plain character";
    std::vector<std::string> stopped = args;
    stopped.insert(stopped.end(), {"-r", std::string(1, *at)});
    const Json object = run_json(stopped);
    EXPECT_EQ(object["stop"], "reverse_prompt");
    EXPECT_EQ(object["text"], text.substr(0, static_cast<std::size_t>(at - text.begin())));
}

TEST_F(Cli, ContextThatFillsEndsTheAnswer) {
    const Json object = run_json({"-p", "a", "-no-cnv", "-c", "12", "--ignore-eos"});
    EXPECT_EQ(object["stop"], "context");
    EXPECT_EQ(object["tokens"]["prompt"].get<int>() + object["tokens"]["generated"].get<int>(), 12);
    // -c beyond the trained context (2,048) does not lift it; --allow-long does.
    const std::string long_prompt(2000, '.');
    const std::vector<std::string> args{"-p", long_prompt, "-no-cnv", "-c", "2060", "--ignore-eos"};
    const auto seen = [&](const std::vector<std::string>& more) {
        std::vector<std::string> all = args;
        all.insert(all.end(), more.begin(), more.end());
        const Json run = run_json(all);
        EXPECT_EQ(run["stop"], "context");
        return run["tokens"]["prompt"].get<int>() + run["tokens"]["generated"].get<int>();
    };
    EXPECT_EQ(seen({}), 2048);
    EXPECT_EQ(seen({"--allow-long"}), 2060);
}

TEST_F(Cli, InspectListsAscendingPositionsAndScores) {
    const Result result =
        with_model("inspect", {"-p", std::string(200, 'a') + " b c", "--method", "snapkv",
                               "--max-capacity-prompts", "40", "--window-size", "8", "--json"});
    ASSERT_EQ(result.code, 0) << result.err;
    const Json object = Json::parse(result.out);
    ASSERT_EQ(object["layers"].size(), 2U);
    const auto tokens = static_cast<int>(object["tokens"].size());
    for (const Json& layer : object["layers"]) {
        EXPECT_EQ(layer["heads"].size(), 2U);
        for (const Json& head : layer["heads"]) {
            const auto positions = head["positions"].get<std::vector<int>>();
            EXPECT_EQ(static_cast<int>(positions.size()), std::min(tokens, 40));
            EXPECT_TRUE(std::is_sorted(positions.begin(), positions.end()));
            EXPECT_EQ(head["scores"].size(), positions.size());
            EXPECT_TRUE(head["scores"].back().is_null());  // the window is kept by rule
            const auto scored = std::count_if(head["scores"].begin(), head["scores"].end(),
                                              [](const Json& score) { return score.is_number(); });
            EXPECT_EQ(scored, 32);  // the others by their scores
        }
        EXPECT_EQ(layer["budget"], 40);
    }
    const Result full = with_model("inspect", {"-p", "some words", "--json", "-no-cnv"});
    EXPECT_EQ(Json::parse(full.out)["layers"][0]["budget"], Json::parse(full.out)["tokens"].size());
    const Result map = with_model("inspect", {"-p", "some words", "--method", "full"});
    EXPECT_EQ(map.code, 0) << map.err;
    EXPECT_NE(map.out.find("budget"), std::string::npos);
}

TEST_F(Cli, MethodsAndInfoTellCosts) {
    const Result methods = with_model("methods", {"--json"});
    ASSERT_EQ(methods.code, 0) << methods.err;
    const Json listing = Json::parse(methods.out);
    EXPECT_GE(listing["policies"].size(), 6U);
    EXPECT_TRUE(listing["bytes_per_token"]["kivi"]["4"].is_number());
    const Result info = with_model("info", {"--json"});
    ASSERT_EQ(info.code, 0) << info.err;
    const Json shape = Json::parse(info.out);
    EXPECT_EQ(shape["layers"], 2);
    EXPECT_EQ(shape["kv_heads"], 2);
    EXPECT_EQ(shape["head_dim"], 32);
    EXPECT_EQ(run({"methods"}).code, 0);
    EXPECT_NE(with_model("info", {}).out.find("trained context"), std::string::npos);
}

TEST_F(Cli, CalibrateWritesAFileThatRunTakes) {
    const std::string text = file("corpus.txt", [] {
        std::string words;
        for (int i = 0; i < 180; ++i) words += "word " + std::to_string(i * i % 97) + " and ";
        return words;
    }());
    const std::string levels = program_->path("levels.json");
    const Result made = with_model("calibrate", {"-f", text, "-o", levels, "--tokens", "400"});
    ASSERT_EQ(made.code, 0) << made.err;
    EXPECT_EQ(made.out, "");
    const std::vector<std::string> args{
        "-f", text, "-no-cnv", "-n", "3", "--quant-method", "kvquant", "--nbits", "3"};
    std::vector<std::string> with_levels = args;
    with_levels.insert(with_levels.end(), {"--kvquant_codebook", levels});
    const Json own = run_json(args), offline = run_json(with_levels);
    EXPECT_NE(own["logits_hash"], offline["logits_hash"]);
    EXPECT_EQ(offline["options"]["kvquant_codebook"], levels);

    expect_error(with_model("calibrate", {"-f", text}), 2, "-o FILE");
    expect_error(with_model("calibrate", {"-o", levels}), 2, "-f FILE");
    expect_error(with_model("calibrate", {"-f", file("short.txt", "few"), "-o", levels}), 1, "256");
    expect_error(with_model("calibrate", {"-f", text, "-o", "/no/such/levels.json"}), 1, "-o");
    expect_error(with_model("calibrate", {"-f", text, "-o", program_->path("")}), 1, "-o");
    with_levels.back() = file("bad.json", "{}");
    expect_error(with_model("run", with_levels), 1, "bad.json");
    with_levels[6] = "kivi";
    expect_error(with_model("run", with_levels), 2, "--kvquant-codebook");
}

TEST_F(Cli, ChatReadsTurnsFromAPipe) {
    const std::vector<std::string> args{
        "-n", "4", "--ignore-eos", "--method", "streamingllm", "--max-capacity-prompts", "32"};
    const Result chat = with_model("chat", args, "hello\n/stats\nand again\n/exit\nnever\n");
    ASSERT_EQ(chat.code, 0) << chat.err;
    EXPECT_NE(chat.err.find("8 written"), std::string::npos) << chat.err;
    expect_error(with_model("chat", args, std::string(9000, '.') + "\n"), 2, "does not fit");
}

TEST_F(Cli, InterruptExitsWith130) {
    const pid_t child =
        program_->start({"run", "-m", model(), "-p", "hello", "-n", "-1", "--ignore-eos",
                         "--allow-long", "--method", "streamingllm"});
    ASSERT_GT(child, 0);
    // The first text of the answer shows that Ctrl-C is waited for.
    for (int i = 0; i < 500 && program_->out().empty(); ++i) usleep(10'000);
    kill(child, SIGINT);
    const Result result = program_->finish(child);
    EXPECT_EQ(result.code, 130) << result.err;
    EXPECT_NE(result.out, "");
}

}  // namespace
