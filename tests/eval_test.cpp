// The parts of `winnow eval`: sweeps and their names, shards, result files that resume, prompts
// that are exact in tokens, and replies that equal those of separate sessions.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "eval/haystack.h"
#include "eval/lengths.h"
#include "eval/needle_prompt.h"
#include "eval/runner.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"
#include "text/utf8.h"

namespace winnow::eval {
namespace {

namespace fs = std::filesystem;

std::string message_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

class Eval : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = std::make_unique<testing::Folder>();
        testing::TinyModelOptions options;
        options.tokenizer = testing::TinyTokenizer::byte_bpe;
        options.context = 2048;
        testing::write_tiny_gguf(folder_->file("tiny.gguf"), options);
        model_ = Model::load(folder_->file("tiny.gguf"), {.threads = 1});
        fs::create_directories(folder_->file("hay"));
        std::string text;
        for (int i = 0; i < 60; ++i) {
            text += "Number " + std::to_string(i) + " of the ships came home. ";
        }
        std::ofstream(folder_->file("hay/b.txt")) << text;
        std::ofstream(folder_->file("hay/a.txt")) << "The first file! It has two sentences.";
    }
    static void TearDownTestSuite() {
        model_.reset();
        folder_.reset();
    }
    static Settings needle_settings() {
        Settings s;
        s.haystack = folder_->file("hay");
        s.s_len = 600;
        s.e_len = 700;
        s.step = 100;
        s.depths = 2;
        s.needle = "sf,number";
        return s;
    }
    static std::vector<Config> configs(const std::string& sweep, const Settings& s) {
        return make_configs(expand_sweep(sweep, {}), find_suite("needle"), s, model_);
    }

    static std::unique_ptr<testing::Folder> folder_;
    static std::shared_ptr<const Model> model_;
};

std::unique_ptr<testing::Folder> Eval::folder_;
std::shared_ptr<const Model> Eval::model_;

std::vector<std::string> ids(const std::vector<Config>& configs) {
    std::vector<std::string> all;
    for (const Config& config : configs) {
        all.push_back(config.id);
    }
    return all;
}

TEST_F(Eval, SweepsExpandAndControlsAreAdded) {
    EXPECT_EQ(ids(configs("method=snapkv,PyramidKV; cap=64,1/16; quant=kivi:16,2,k8v4", {})),
              (std::vector<std::string>{
                  "full-16", "snapkv-64-16", "snapkv-64-kivi2", "snapkv-64-kivik8v4",
                  "snapkv-r0.0625-16", "snapkv-r0.0625-kivi2", "snapkv-r0.0625-kivik8v4",
                  "pyramidkv-64-16", "pyramidkv-64-kivi2", "pyramidkv-64-kivik8v4",
                  "pyramidkv-r0.0625-16", "pyramidkv-r0.0625-kivi2", "pyramidkv-r0.0625-kivik8v4",
                  "random-64-16", "random-r0.0625-16"}));
    EXPECT_EQ(ids(configs("method=full,random; cap=64; quant=hqq:4,none,16", {})),
              (std::vector<std::string>{"full-16", "full-hqq4", "random-64-hqq4", "random-64-16"}));
    EXPECT_EQ(ids(configs("method=snapkv,random; cap=128; window-size=8,16", {})),
              (std::vector<std::string>{"full-16", "snapkv-128-16-w8", "snapkv-128-16-w16",
                                        "random-128-16-w8", "random-128-16-w16"}));
    EXPECT_EQ(configs("method=adakv:knorm,random; cap=64", {})[1].options.method, "adakv:knorm");
    EXPECT_THROW(configs("method=adakv:knrm; cap=64", {}), Error);
}

TEST_F(Eval, EqualBytesAreFoundForEveryPrompt) {
    const auto list = configs("method=mixed,snapkv; budget=1/4,20000; window-size=8", {});
    EXPECT_EQ(ids(list),
              (std::vector<std::string>{"full-16", "mixed-b1:4", "mixed-b20000", "snapkv-b1:4-16",
                                        "snapkv-b20000-16", "random-b1:4-16", "random-b20000-16"}));
    int before = 0;
    for (const int tokens : {300, 600}) {
        const auto fitted = fit_budgets(list, *model_, tokens);
        EXPECT_EQ(options_json(fitted[0].options), options_json(list[0].options));
        const auto full = model_->info().full_cache_bytes(static_cast<std::uint64_t>(tokens));
        EXPECT_EQ(fitted[1].options.kv_budget, std::to_string(full / 4));
        EXPECT_EQ(fitted[2].options.kv_budget, "20000");
        EXPECT_TRUE(fitted[3].options.kv_budget.empty());
        EXPECT_GT(fitted[3].options.max_capacity_prompts, before);
        before = fitted[3].options.max_capacity_prompts;
        EXPECT_LT(before, tokens / 4);  // positions and the ring of queries count
    }
}

TEST_F(Eval, TheNeedleChoosesWindowsWhereTheUserDidNot) {
    Settings paper;
    paper.mode = "paper";
    const auto window = [&](const Settings& s, const char* sweep) {
        return configs(sweep, s)[1].options.window_size;
    };
    EXPECT_EQ(window({}, "method=pyramidkv; cap=64"), 32);
    EXPECT_EQ(window(paper, "method=pyramidkv; cap=64"), 8);
    EXPECT_EQ(window(paper, "method=snapkv; cap=64"), 32);
    EXPECT_EQ(window(paper, "method=snapkv; cap=64; window_size=16"), 16);
}

TEST_F(Eval, BadSweepsAreNamed) {
    const auto bad = [](const std::string& text) {
        return message_of([&] { expand_sweep(text, {}); });
    };
    EXPECT_NE(bad("method=snapvk").find("did you mean 'snapkv'"), std::string::npos);
    EXPECT_NE(bad("metod=snapkv").find("did you mean 'method'"), std::string::npos);
    EXPECT_NE(bad("quant=kivy:4").find("did you mean 'kivi'"), std::string::npos);
    EXPECT_NE(bad("cap=12x").find("'cap=12x'"), std::string::npos);
    EXPECT_NE(bad("cap=1,,2").find("value is missing"), std::string::npos);
    EXPECT_NE(bad("cap=3/2").find("share of the prompt"), std::string::npos);
    EXPECT_NE(bad("budget=0/2").find("share of the prompt"), std::string::npos);
    EXPECT_NE(bad("budget=12x").find("12x"), std::string::npos);
    EXPECT_NE(bad("cap").find("key=value"), std::string::npos);
    EXPECT_NE(bad(" ; ").find("--sweep is empty"), std::string::npos);
    EXPECT_NE(message_of([&] { read_sweep_file("/nowhere/at/all", {}); }).find("/nowhere/at/all"),
              std::string::npos);
    EXPECT_NE(message_of([&] { find_suite("needel"); }).find("did you mean 'needle'"),
              std::string::npos);
}

// A profile or a codebook beside a sweep is for those that read it; one that nobody reads is not
// passed over in silence where the sweep itself names it.
TEST_F(Eval, FilesOfOneMethodGoToIt) {
    CacheOptions base;
    base.profile = "none";
    base.kvquant_codebook = "levels.json";
    const auto all = expand_sweep("method=mixed,snapkv; budget=1/8; quant=none", base);
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].profile, "none");
    EXPECT_EQ(all[1].profile, "");
    EXPECT_EQ(all[1].kvquant_codebook, "");
    EXPECT_EQ(expand_sweep("quant=kvquant:4", base)[0].kvquant_codebook, "levels.json");
    EXPECT_EQ(expand_sweep("method=h2o; cap=64", base)[0].profile, "");
    EXPECT_EQ(expand_sweep("method=h2o,mixed; profile=none", {})[0].profile, "");
    EXPECT_EQ(expand_sweep("kv-budget=64KiB", base)[0].profile, "none");
    EXPECT_NE(
        message_of([&] { configs("method=h2o; cap=64; profile=none", {}); }).find("--profile"),
        std::string::npos);
}

TEST_F(Eval, SweepFilesJoinTheirLines) {
    const std::string path = folder_->file("sweeps");
    std::ofstream(path) << "# two\nmethod=h2o; cap=64\n\nmethod=snapkv; cap=128; quant=4\n";
    const auto all = read_sweep_file(path, {});
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[1].method, "snapkv");
    EXPECT_EQ(all[1].quant_method, "kivi");
    std::ofstream(path) << "# nothing\n";
    EXPECT_NE(message_of([&] { read_sweep_file(path, {}); }).find("holds no sweep"),
              std::string::npos);
}

TEST(EvalShard, OfTheFlagAndOfLaunchers) {
    EXPECT_EQ(parse_shard("2/4").index, 2);
    for (const char* bad : {"4/4", "-1/4", "1", "1/", "a/b", "1/0"}) {
        EXPECT_NE(message_of([&] { parse_shard(bad); }).find("--shard is"), std::string::npos)
            << bad;
    }
    const Shard shard = parse_shard("1/3");
    EXPECT_FALSE(shard.mine(0));
    EXPECT_TRUE(shard.mine(1) && shard.mine(4));
    EXPECT_EQ(shard.file_name("results", ".jsonl"), "results-1-of-3.jsonl");
    for (const auto& [rank, size] : std::vector<std::pair<const char*, const char*>>{
             {"SLURM_PROCID", "SLURM_NTASKS"},
             {"PMI_RANK", "PMI_SIZE"},
             {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}}) {
        setenv(rank, "1", 1);
        setenv(size, "2", 1);
        EXPECT_EQ(shard_of_launcher().index, 1) << rank;
        EXPECT_EQ(shard_of_launcher().count, 2) << rank;
        EXPECT_EQ(shard_of_launcher().source, rank);
        setenv(rank, "2", 1);
        EXPECT_NE(message_of([] { shard_of_launcher(); }).find(rank), std::string::npos);
        unsetenv(rank);
        unsetenv(size);
    }
    EXPECT_EQ(shard_of_launcher().count, 1);
}

OrderedJson run_of(const std::string& fingerprint) {
    return {{"fingerprint", fingerprint}};
}

OrderedJson line(const std::string& prompt, const std::string& config) {
    return {{"prompt", prompt}, {"config", config}, {"score", 1.0}};
}

TEST_F(Eval, ResultFilesResumeAndCutWhatWasTorn) {
    const fs::path folder = folder_->file("results");
    {
        ResultFile file(folder, {}, run_of("a"), 2);
        file.append("p1", {line("p1", "x"), line("p1", "y")});
        file.append("p2", {line("p2", "x"), line("p2", "y")});
        // Another process must not write into it at the same time.
        EXPECT_NE(
            message_of([&] { ResultFile(folder, {}, run_of("a"), 2); }).find("another process"),
            std::string::npos);
    }
    // Killed in the middle of the second line of a prompt.
    std::ofstream(folder / "results.jsonl", std::ios::app)
        << line("p3", "x").dump() << "\n{\"prompt\":\"p3\",\"conf";
    EXPECT_EQ(read_result_lines(folder).size(), 5U);
    ResultFile again(folder, {}, run_of("a"), 2);
    EXPECT_EQ(again.folder(), folder);
    EXPECT_TRUE(again.done("p1") && again.done("p2"));
    EXPECT_FALSE(again.done("p3"));
    again.append("p3", {line("p3", "x"), line("p3", "y")});
    EXPECT_EQ(read_result_lines(folder).size(), 6U);
}

TEST_F(Eval, OtherOptionsStartARunOfTheirOwn) {
    const fs::path folder = folder_->file("many");
    ResultFile first(folder, {}, run_of("a"), 1);
    first.append("p", {line("p", "x")});
    ResultFile second(folder, {}, run_of("b"), 1);
    EXPECT_EQ(second.folder(), folder / "run-2");
    EXPECT_FALSE(second.done("p"));
    ResultFile third(folder, {}, run_of("c"), 1);
    EXPECT_EQ(third.folder(), folder / "run-3");
}

TEST_F(Eval, ShardsShareAFolderAndSeeEachOther) {
    const fs::path folder = folder_->file("shards");
    ResultFile a(folder, parse_shard("0/2"), run_of("a"), 1);
    a.append("p0", {line("p0", "x")});
    ResultFile b(folder, parse_shard("1/2"), run_of("a"), 1);
    EXPECT_EQ(b.folder(), folder);
    EXPECT_TRUE(b.done("p0"));  // also when the number of shards changes
    b.append("p1", {line("p1", "x")});
    EXPECT_EQ(read_result_lines(folder).size(), 2U);
    EXPECT_TRUE(fs::exists(folder / "run-1-of-2.json"));
}

TEST_F(Eval, AFolderThatCannotBeMadeIsNamed) {
    std::ofstream(folder_->file("a file")) << "x";
    const std::string message =
        message_of([&] { ResultFile(folder_->file("a file") + "/deep", {}, run_of("a"), 1); });
    EXPECT_NE(message.find("--save-dir"), std::string::npos);
    EXPECT_NE(message.find("a file"), std::string::npos);
}

TEST_F(Eval, TextsAreJoinedInNameOrderAndMissingOnesNamed) {
    const std::string text = read_texts(folder_->file("hay"), "\n", "--haystack");
    EXPECT_EQ(text.find("The first file! It has two sentences.\nNumber 0"), 0U);
    EXPECT_NE(message_of([] {
                  read_texts("/nowhere", "\n", "--haystack");
              }).find("--haystack names /nowhere"),
              std::string::npos);
    fs::create_directories(folder_->file("empty"));
    EXPECT_NE(message_of([] {
                  read_texts(folder_->file("empty"), "\n", "--haystack");
              }).find("holds no text"),
              std::string::npos);
    EXPECT_EQ(sentence_end("One. Two! No 3.5 here", 21), 9U);
    EXPECT_EQ(sentence_end("One. Two", 3), 0U);
}

// Length: the prompt's tokens, exactly. Depth: the needle stands behind a sentence, and no
// sentence ends between it and the token that the depth names.
TEST_F(Eval, HonestPromptsAreExactInTokens) {
    const std::string text = read_texts(folder_->file("hay"), "\n", "--haystack");
    Haystack haystack(model_, text);
    for (const bool number : {false, true}) {
        const Needle needle = number ? number_needle(7) : sf_needle("honest", false);
        for (const int length : {500, 501, 502, 503, 640, 1999}) {
            for (const int depth : {0, 10, 33, 50, 90, 100}) {
                const NeedlePrompt p = honest_prompt(*model_, haystack, needle, length, depth, 3);
                EXPECT_EQ(static_cast<int>(p.tokens.size()), length);
                const std::size_t at = p.text.find(needle.sentence);
                ASSERT_NE(at, std::string::npos);
                EXPECT_EQ(p.text.find(needle.sentence, at + 1), std::string::npos);
                EXPECT_LE(p.needle_at, p.haystack_tokens * depth / 100);
                EXPECT_NE(p.text.find(needle.question), std::string::npos);
                const std::size_t begin = p.text.find("\n\n") + 2;
                std::string before = p.text.substr(begin, at - begin);
                const int counted = static_cast<int>(model_->tokenize(before, false, false).size());
                EXPECT_NEAR(counted, p.needle_at, 2) << length << " " << depth;
                // The next sentence of the haystack ends past the depth.
                std::size_t after = at + needle.sentence.size();
                const std::size_t next = p.text.find(". ", after);
                if (next != std::string::npos && depth < 90) {
                    before += p.text.substr(after, next + 1 - after);
                    EXPECT_GT(static_cast<int>(model_->tokenize(before, false, false).size()) + 1,
                              p.haystack_tokens * depth / 100);
                }
            }
        }
    }
    EXPECT_NE(message_of([&] {
                  honest_prompt(*model_, haystack, sf_needle("honest", false), 50, 0, 0);
              }).find("too short"),
              std::string::npos);
}

TEST_F(Eval, PaperPromptsLeaveTwoHundredTokens) {
    Haystack haystack(model_, read_texts(folder_->file("hay"), "", "--haystack"));
    const Needle needle = sf_needle("paper", false);
    for (const int depth : {0, 50, 100}) {
        const NeedlePrompt p = paper_prompt(*model_, haystack, needle, 900, depth, 0);
        const std::string inserted = "\n" + needle.sentence + "\n";
        EXPECT_EQ(
            p.haystack_tokens + static_cast<int>(model_->tokenize(inserted, false, false).size()),
            700);
        EXPECT_LE(p.needle_at, p.haystack_tokens * depth / 100);
        EXPECT_NE(p.text.find(inserted), std::string::npos);
        EXPECT_EQ(p.text.find("<|im_start|> This is a very long story book: <book> "), 0U);
        const std::string end =
            " </book>.\n Based on the content of the book, Question: The best "
            "thing to do in San Francisco is: \nAnswer:";
        EXPECT_EQ(p.text.substr(p.text.size() - end.size()), end);
    }
}

TEST_F(Eval, NumbersAreDrawnByTheSeed) {
    EXPECT_EQ(number_needle(1).sentence, number_needle(1).sentence);
    std::set<std::string> numbers;
    for (int seed = 0; seed < 50; ++seed) {
        const Needle needle = number_needle(static_cast<std::uint64_t>(seed));
        numbers.insert(needle.expected);
        EXPECT_EQ(needle.expected.size(), 7U);
        EXPECT_NE(needle.sentence.find(needle.expected), std::string::npos);
    }
    EXPECT_GE(numbers.size(), 49U);
}

TEST_F(Eval, LengthsMustFitTheContext) {
    Settings s;
    s.s_len = 500;
    s.e_len = 1500;
    s.step = 500;
    EXPECT_EQ(lengths_of(s, *model_, {}, 10), (std::vector<int>{500, 1000, 1500}));
    s.e_len = 2048;
    s.s_len = 2048;
    EXPECT_NE(message_of([&] { lengths_of(s, *model_, {}, 10); }).find("--e-len"),
              std::string::npos);
    s.e_len = 100;
    EXPECT_NE(message_of([&] { lengths_of(s, *model_, {}, 10); }).find("--s-len is 2048"),
              std::string::npos);
}

// A whole run: every line's reply and bytes are those of a session by itself, a second call does
// nothing, and a shard does its share.
TEST_F(Eval, RepliesEqualSeparateSessions) {
    const Settings s = needle_settings();
    const Suite& suite = find_suite("needle");
    const auto list = configs("method=snapkv,h2o; cap=96; quant=kivi:16,4", s);
    const PromptSet prompts = suite.open(s, model_);
    ASSERT_EQ(prompts.ids.size(), 8U);
    RunnerOptions options;
    const OrderedJson run = describe_run(suite, s, prompts, list, *model_, options);
    ResultFile file(folder_->file("run"), {}, run, list.size());
    run_suite(model_, run, prompts, list, options, file);
    const std::vector<OrderedJson> lines = read_result_lines(file.folder());
    ASSERT_EQ(lines.size(), prompts.ids.size() * list.size());
    for (std::size_t i = 0; i < 2 * list.size(); ++i) {
        const Prompt prompt = prompts.make(i / list.size());
        const Config& config = list[i % list.size()];
        EXPECT_EQ(lines[i]["prompt"], prompt.id);
        EXPECT_EQ(lines[i]["config"], config.id);
        Session session(model_, config.options);
        session.prefill(prompt.tokens);
        std::string reply;
        int count = 0;
        while (count < prompt.max_new_tokens) {
            const std::span<const float> logits = session.logits();
            const auto token = static_cast<std::int32_t>(
                std::max_element(logits.begin(), logits.end()) - logits.begin());
            if (model_->is_end_of_generation(token)) {
                break;
            }
            reply += model_->piece(token);
            session.decode(token);
            ++count;
            if (prompt.stop_at_newline && reply.find('\n') != std::string::npos) {
                reply.resize(reply.find('\n'));
                break;
            }
        }
        EXPECT_EQ(lines[i]["tokens"]["generated"], count);
        EXPECT_EQ(lines[i]["kv"]["bytes"], session.stats().bytes) << config.id;
        EXPECT_EQ(lines[i]["reply"], sanitize_utf8(reply)) << config.id;
    }
    int calls = 0;
    run_suite(model_, run, prompts, list, options, file,
              [&](const Status&) { return ++calls > 0; });
    EXPECT_EQ(calls, 0);
}

TEST_F(Eval, StoppingLosesThePromptInWorkAlone) {
    const Settings s = needle_settings();
    const Suite& suite = find_suite("needle");
    const auto list = configs("method=snapkv; cap=96", s);
    const PromptSet prompts = suite.open(s, model_);
    RunnerOptions options;
    const OrderedJson run = describe_run(suite, s, prompts, list, *model_, options);
    ResultFile file(folder_->file("stopped"), {}, run, list.size());
    EXPECT_THROW(run_suite(model_, run, prompts, list, options, file,
                           [](const Status& at) { return at.done < 2 || at.share < 0.3; }),
                 Error);
    EXPECT_EQ(read_result_lines(file.folder()).size(), 2 * list.size());
    EXPECT_EQ(file.done_count(), 2U);
}

TEST_F(Eval, TheFingerprintKnowsWhatChangesResults) {
    const Suite& suite = find_suite("needle");
    const auto print = [&](Settings s, const std::string& sweep, int batch) {
        RunnerOptions options;
        options.session.batch = batch;
        options.command = sweep;
        const auto list = configs(sweep, s);
        return describe_run(suite, s, suite.open(s, model_), list, *model_, options)["fingerprint"];
    };
    const Settings s = needle_settings();
    RunnerOptions shared;
    shared.decode_batch = 40;
    const auto caches = configs("method=snapkv; cap=96", s);
    EXPECT_EQ(describe_run(suite, s, suite.open(s, model_), caches, *model_,
                           shared)["settings"]["decode_batch"],
              40);
    const auto plain = print(s, "method=snapkv; cap=96", 512);
    EXPECT_EQ(plain, print(s, "method=snapkv;cap=96;", 512));
    EXPECT_NE(plain, print(s, "method=snapkv; cap=97", 512));
    EXPECT_NE(plain, print(s, "method=snapkv; cap=96", 64));
    Settings other = s;
    other.depths = 3;
    EXPECT_NE(plain, print(other, "method=snapkv; cap=96", 512));
    other = s;
    other.seed = 1;
    EXPECT_NE(plain, print(other, "method=snapkv; cap=96", 512));
}

// The full cache against itself is exact; a smaller one is not; packing while decoding is another
// measurement of the same thing.
TEST_F(Eval, FidelityIsZeroForTheFullCache) {
    Settings s;
    s.file = folder_->file("hay");
    s.s_len = 300;
    s.force_tokens = 40;
    s.max_num_examples = 2;
    const Suite& suite = find_suite("fidelity");
    const auto list = make_configs(expand_sweep("method=full,snapkv; cap=64; quant=kivi:16,2", {}),
                                   suite, s, model_);
    for (const bool pack : {false, true}) {
        s.pack_decode = pack;
        const PromptSet prompts = suite.open(s, model_);
        ASSERT_EQ(prompts.ids.size(), 2U);
        RunnerOptions options;
        options.pack_decode = pack;
        const Prompt prompt = prompts.make(1);
        EXPECT_EQ(prompt.tokens.size(), 300U);
        EXPECT_EQ(prompt.forced.size(), 41U);
        const std::vector<Outcome> outcomes = run_prompt(model_, list, prompt, options);
        for (std::size_t i = 0; i < list.size(); ++i) {
            const Fidelity& f = outcomes[i].fidelity.value();
            EXPECT_EQ(f.tokens, 40);
            EXPECT_GE(f.kl_p99, f.kl_mean);
            if (list[i].id == "full-16") {
                EXPECT_EQ(f.kl_mean, 0.0);
                EXPECT_EQ(f.top1, 1.0);
                EXPECT_EQ(f.ppl, f.ppl_full);
            } else {
                EXPECT_GT(f.kl_mean, 1e-9) << list[i].id;
            }
        }
    }
    s.force_tokens = 100000;
    EXPECT_NE(message_of([&] { suite.open(s, model_); }).find("positions"), std::string::npos);
    s.force_tokens = 40;
    s.s_len = 2000;
    s.file = folder_->file("hay/a.txt");
    EXPECT_NE(message_of([&] { suite.open(s, model_); }).find("use a longer text"),
              std::string::npos);
    s.file = "/nowhere.txt";
    EXPECT_NE(message_of([&] { suite.open(s, model_); }).find("/nowhere.txt"), std::string::npos);
}

}  // namespace
}  // namespace winnow::eval
