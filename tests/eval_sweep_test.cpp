// Sweeps: what they expand to, the controls that are added, equal bytes, and mistakes in them.
#include <gtest/gtest.h>

#include "support/eval_fixture.h"

namespace winnow::eval {
namespace {

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

}  // namespace
}  // namespace winnow::eval
