#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <thread>

#include "text/chat_template.h"
#include "text/llama_logs.h"
#include "text/sampler.h"
#include "text/utf8.h"
#include "text/vocab.h"

namespace winnow {
namespace {

using Turns = std::vector<ChatTurn>;

/// The message of the Error that f throws, with its kind in front; empty if it throws none.
template <class F>
std::string error_of(const F& f) {
    try {
        f();
    } catch (const Error& error) {
        return (error.kind() == ErrorKind::usage ? "usage: " : "failure: ") +
               std::string(error.what());
    }
    return {};
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// ---- UTF-8 and stop strings ----

TEST(Utf8, KeepsWholeCharactersAndReplacesTheRest) {
    EXPECT_EQ(sanitize_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
              "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
    EXPECT_EQ(sanitize_utf8("\xFFx"), "\xEF\xBF\xBDx");
    EXPECT_EQ(sanitize_utf8("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD");                  // overlong
    EXPECT_EQ(sanitize_utf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // surrogate
    EXPECT_EQ(sanitize_utf8("\xF4\x90\x80\x80").size(), 12U);  // past U+10FFFF
    EXPECT_EQ(sanitize_utf8("\xE2\x82"
                            "b"),
              "\xEF\xBF\xBD"
              "b");  // one per maximal part
    EXPECT_EQ(sanitize_utf8("\xF0\x9F\x98"), "\xEF\xBF\xBD");
    EXPECT_EQ(sanitize_utf8(std::string_view("\0", 1)), std::string("\0", 1));
}

TEST(Utf8, StreamsAlikeForEveryCut) {
    const std::string bytes = "h\xC3\xA9\xE2\x82\xAC\xFF\xF0\x9F\x98\x80\xE2\x82z\xF0\x9F";
    const std::string whole = sanitize_utf8(bytes);
    for (size_t a = 0; a <= bytes.size(); ++a) {
        for (size_t b = a; b <= bytes.size(); ++b) {
            Utf8Stream stream;
            std::string out = stream.push(bytes.substr(0, a));
            out += stream.push(bytes.substr(a, b - a));
            out += stream.push(bytes.substr(b));
            EXPECT_EQ(out + stream.finish(), whole) << a << " " << b;
        }
    }
    Utf8Stream stream;
    EXPECT_EQ(stream.push("\xE2"), "");
    EXPECT_EQ(stream.push("\x82"), "");
    EXPECT_EQ(stream.push("\xAC!"), "\xE2\x82\xAC!");
    EXPECT_EQ(stream.finish(), "");
}

TEST(StopMatcher, HoldsBackAndReleases) {
    StopMatcher stop({"User:", ""});
    EXPECT_EQ(stop.push("hello Us"), "hello ");
    EXPECT_EQ(stop.push("a"), "Usa");
    EXPECT_EQ(stop.push("UsUser"), "Us");
    EXPECT_FALSE(stop.stopped());
    EXPECT_EQ(stop.push(": more"), "");
    EXPECT_TRUE(stop.stopped());
    EXPECT_EQ(stop.matched(), "User:");
    EXPECT_EQ(stop.push("ignored"), "");
    EXPECT_EQ(stop.finish(), "");
    stop.reset();
    EXPECT_EQ(stop.push("abUse"), "ab");
    EXPECT_EQ(stop.finish(), "Use");
}

TEST(StopMatcher, TheMatchThatEndsFirstWins) {
    StopMatcher stop({"abcd", "bc"});
    EXPECT_EQ(stop.push("xab"), "x");
    EXPECT_EQ(stop.push("cd"), "a");
    EXPECT_EQ(stop.matched(), "bc");
    StopMatcher longest({"c", "abc"});
    EXPECT_EQ(longest.push("xabcx"), "x");
    EXPECT_EQ(longest.matched(), "abc");
    StopMatcher none({});
    EXPECT_EQ(none.push("all"), "all");
}

TEST(StopMatcher, CutsDoNotMatter) {
    const std::string text = "aab aabaaab end";
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        StopMatcher stop({"aaab"});
        std::string out = stop.push(text.substr(0, cut));
        out += stop.push(text.substr(cut));
        EXPECT_EQ(out + stop.finish(), "aab aab");
        EXPECT_TRUE(stop.stopped());
    }
}

// ---- Chat templates ----

std::string render(const std::string& source, const Turns& turns, bool prompt = true) {
    return ChatTemplate(source, "<s>", "</s>").apply(turns, prompt);
}

const Turns kTalk = {
    {"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Yes?"}, {"user", "Go"}};

TEST(ChatTemplate, BuiltIns) {
    EXPECT_EQ(render(built_in_template("chatml"), kTalk),
              "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
              "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nGo<|im_end|>\n"
              "<|im_start|>assistant\n");
    EXPECT_EQ(render(built_in_template("chatml"), {{"user", "Hi"}}, false),
              "<|im_start|>user\nHi<|im_end|>\n");
    EXPECT_EQ(render(built_in_template("llama3"), {{"user", " Hi "}}),
              "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\n");
    EXPECT_EQ(render(built_in_template("mistral"), kTalk),
              "<s>[INST] Be brief.\n\nHi [/INST] Yes?</s>[INST] Go [/INST]");
    EXPECT_EQ(render(built_in_template("llama2"), kTalk),
              "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Go [/INST]");
}

TEST(ChatTemplate, NamesAndSources) {
    EXPECT_EQ(built_in_template("{{ 'x' }}"), "{{ 'x' }}");
    EXPECT_EQ(built_in_template("{% if true %}{% endif %}"), "{% if true %}{% endif %}");
    const std::string error = error_of([] { built_in_template("chatml2"); });
    EXPECT_TRUE(error.starts_with("usage: --chat-template 'chatml2'")) << error;
    EXPECT_TRUE(has(error, "chatml, llama2, llama3, mistral")) << error;
}

TEST(ChatTemplate, KnowsWhetherItWritesBos) {
    EXPECT_TRUE(ChatTemplate(built_in_template("llama3"), "<s>", "").emits_bos());
    EXPECT_FALSE(ChatTemplate(built_in_template("chatml"), "<s>", "").emits_bos());
    EXPECT_FALSE(ChatTemplate(built_in_template("llama3"), "", "").emits_bos());
}

TEST(ChatTemplate, MergesASystemMessageItCannotTake) {
    const std::string source =
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}[{{ m['role'] }}:{{ m['content'] }}]{% endfor %}";
    EXPECT_EQ(render(source, {{"system", "S"}, {"user", "U"}}), "[user:S\nU]");
}

TEST(ChatTemplate, GivesTypedContentWhereWanted) {
    const std::string source =
        "{% for m in messages %}{% for part in m.content %}"
        "{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}{% endfor %}";
    EXPECT_EQ(render(source, {{"user", "U"}}), "<U>");
}

TEST(ChatTemplate, ContentIsNeverTemplateSource) {
    EXPECT_EQ(render("{{ messages[0]['content'] }}", {{"user", "{{ bos_token }}{% if %}"}}),
              "{{ bos_token }}{% if %}");
    EXPECT_EQ(render("{{ messages[0]['content'] }}", {{"user", "\xFF\xC3"}}), "\xFF\xC3");
}

std::string template_error(const std::string& source) {
    return error_of([&] { render(source, {{"user", "Hi"}}); });
}

TEST(ChatTemplate, ErrorsNameTheLine) {
    const std::pair<const char*, const char*> cases[] = {
        {"a\n{% for x in messages %}\nb", "line 2: its {% for %} is never closed"},
        {"a\nb\n{% endif %}", "line 3: {% endif %} closes nothing"},
        {"{% if a %}\n{% endfor %}{% endif %}", "line 2: {% endfor %} closes nothing; {% if %}"},
        {"x\ny {{ a b }}", "line 2"},
        {"x\n\n{% frobnicate %}", "line 3: Unknown statement: frobnicate"},
        {"\n{{ 'abc }}", "cannot be parsed, line 2"},
        {"\n\n{{ ? }}", "cannot be parsed, line 3"},
        {"a\n{{ messages[0].content.nothing.more() }}", "failed at line 2"},
        {"a\n\n{{ raise_exception('roles must alternate') }}", "roles must alternate"},
        {"{{ 'x' | frobnicate }}", "failed at line 1"},
        {"{{ 99999999999999999999 }}", "line 1"},
        {"{{ 1 | 2 }}", "line 1"},
        {"{{", "line 1"},
    };
    for (const auto& [source, part] : cases) {
        const std::string error = template_error(source);
        EXPECT_TRUE(error.starts_with("failure: ")) << source << " gave " << error;
        EXPECT_TRUE(has(error, part)) << source << " gave " << error;
        EXPECT_FALSE(has(error, "\n")) << error;
    }
}

std::string repeat(const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
}

TEST(ChatTemplate, DeepNestingIsRefused) {
    for (const std::string& source : {
             "{{ " + repeat("(", 100'000) + "1" + repeat(")", 100'000) + " }}",
             "{{ " + repeat("[", 100'000) + " }}",
             "{{ " + repeat("{'a':", 100'000) + " }}",
             "{{ " + repeat("not ", 100'000) + "1 }}",
             "{{ " + repeat("- ", 100'000) + "1 }}",
             "{{ 1" + repeat(" + 1", 100'000) + " }}",
             "{{ a" + repeat(".a", 100'000) + " }}",
             "{{ a" + repeat("()", 100'000) + " }}",
             "{{ 'a'" + repeat("|trim", 100'000) + " }}",
             "{{ 1" + repeat(" if a else 1", 50'000) + " }}",
             repeat("{% if a %}", 50'000) + repeat("{% endif %}", 50'000),
             "{% if a %}" + repeat("{% elif a %}", 50'000) + "{% endif %}",
             std::string((1 << 20) + 1, 'x'),
         }) {
        const std::string error = template_error(source);
        EXPECT_TRUE(error.starts_with("failure: The chat template ")) << source.substr(0, 40);
        EXPECT_LT(error.size(), 300U);
    }
    // What is just inside the bounds must work.
    EXPECT_EQ(template_error("{{ " + repeat("(", 99) + "1" + repeat(")", 99) + " }}"), "");
    EXPECT_EQ(template_error("{{ 1" + repeat(" + 1", 400) + " }}"), "");
    EXPECT_EQ(template_error("{{ 'a'" + repeat("|trim", 400) + " }}"), "");
    EXPECT_EQ(template_error(repeat("{% if 1 %}", 99) + "x" + repeat("{% endif %}", 99)), "");
}

TEST(ChatTemplate, EndlessWorkIsStopped) {
    for (const char* source : {
             "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
             "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{% endmacro %}"
             "{% for a in range(1000000) %}{% for b in range(1000000) %}x{% endfor %}{% endfor %}",
             "{{ 'x' * 100000000000 }}",
             "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(100) %}"
             "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
             "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(100) %}"
             "{% set ns.s = ns.s | replace('x', 'xxxxxxxx') %}{% endfor %}",
             "{% set ns = namespace(a=[1]) %}{% for i in range(100) %}"
             "{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a | length }}",
             "{% set ns = namespace(a=[1]) %}{% for i in range(100) %}"
             "{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
             "{% set ns = namespace(a=[1]) %}{% for i in range(100) %}"
             "{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson }}",
             "{% set ns = namespace(a=[1]) %}{% for i in range(20000) %}"
             "{% set ns.a = [ns.a] %}{% endfor %}",
             "{% set a = [] %}{% set _ = a.append(a) %}{{ a | tojson }}",
             "{{ range(100000000000) | length }}",
             "{{ range(9223372036854775806, 9223372036854775807, 5) | length }}",
             "{{ [1, 2] | tojson(indent=1000000000) }}",
             "{% set big = 'x' * 1000000 %}{% for i in range(100000) %}{{ big }}{% endfor %}",
         }) {
        const std::string error = template_error(source);
        EXPECT_TRUE(error.starts_with("failure: The chat template failed")) << source << error;
    }
}

TEST(ChatTemplate, LongTalksStayInsideTheBounds) {
    const ChatTemplate chatml(built_in_template("chatml"), "", "");
    const std::string text(20'000, 'x');
    Turns turns;
    for (int i = 0; i < 500; ++i) {
        turns.push_back({"user", text});
        turns.push_back({"assistant", text});
    }
    EXPECT_GT(chatml.apply(turns, true).size(), text.size() * 1000);
}

TEST(ChatTemplate, MayBeUsedFromSeveralThreads) {
    const ChatTemplate llama3(built_in_template("llama3"), "<s>", "");
    const std::string expected = llama3.apply(kTalk, true);
    std::vector<std::thread> threads;
    std::vector<std::string> results(4);
    for (auto& result : results) {
        threads.emplace_back([&] {
            for (int i = 0; i < 20; ++i) result = llama3.apply(kTalk, true);
        });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& result : results) EXPECT_EQ(result, expected);
}

// ---- Real tokenizers ----

std::string model_path(const std::string& file) {
    const char* folder = std::getenv("WINNOW_TEST_MODELS");
    const char* home = std::getenv("HOME");
    if (folder == nullptr && home == nullptr) return file;
    return (folder != nullptr ? std::string(folder) : std::string(home) + "/.cache/winnow-models") +
           "/" + file;
}

constexpr const char* kSmol = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr const char* kQwen = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";

std::shared_ptr<const Vocab> load_once(const std::string& file) {
    static std::map<std::string, std::shared_ptr<const Vocab>> loaded;
    auto& vocab = loaded[file];
    if (!vocab && std::filesystem::exists(model_path(file))) vocab = Vocab::load(model_path(file));
    return vocab;
}

#define NEED_VOCAB(name, file)                                                        \
    const auto name = load_once(file);                                                \
    if (!name)                                                                        \
    GTEST_SKIP() << "The model " << file << " is missing; set WINNOW_TEST_MODELS to " \
                 << "the folder that has it."

TEST(Vocab, ReportsAMissingAndABrokenFile) {
    const std::string missing = error_of([] { Vocab::load("no/such/model.gguf"); });
    EXPECT_TRUE(has(missing, "failure: The tokenizer of 'no/such/model.gguf'")) << missing;
    const auto path = std::filesystem::temp_directory_path() / "winnow_text_test_broken.gguf";
    std::ofstream(path) << "GGUF, or so it says";
    const std::string broken = error_of([&] { Vocab::load(path.string()); });
    EXPECT_TRUE(has(broken, "winnow_text_test_broken.gguf")) << broken;
    std::filesystem::remove(path);
}

TEST(Vocab, LogsGoToTheCallbackOnly) {
    int messages = 0;
    std::string last;
    set_log_callback([&](int level, const std::string& text) {
        if (level == 4) last = text;
        ++messages;
    });
    error_of([] { Vocab::load("no/such/model.gguf"); });
    set_log_callback({});
    EXPECT_GT(messages, 0);
    EXPECT_FALSE(last.empty());
    const int before = messages;
    error_of([] { Vocab::load("no/such/model.gguf"); });
    EXPECT_EQ(messages, before);
}

TEST(Vocab, RoundTrips) {
    for (const char* file : {kSmol, kQwen}) {
        NEED_VOCAB(vocab, file);
        ASSERT_TRUE(vocab->has_tokens());
        for (const std::string& text :
             {std::string("Hello world"), std::string("  two  spaces\n\n\ttab "),
              std::string("na\xC3\xAFve \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80"),
              std::string("int main() { return 0; }\n"), std::string("a\0b", 3),
              std::string(200'000, ' ') + std::string(100'000, 'x'), std::string()}) {
            const auto tokens = vocab->tokenize(text, false, false);
            EXPECT_EQ(vocab->detokenize(tokens), text);
            std::string pieces;
            for (const int32_t token : tokens) pieces += vocab->piece(token, false);
            EXPECT_EQ(pieces, text);
        }
    }
}

TEST(Vocab, SpecialTokens) {
    NEED_VOCAB(vocab, kSmol);
    EXPECT_EQ(vocab->size(), 49152);
    EXPECT_EQ(vocab->tokenize("<|im_end|>", false, true), std::vector<int32_t>{2});
    EXPECT_GT(vocab->tokenize("<|im_end|>", false, false).size(), 1U);
    EXPECT_EQ(vocab->piece(2, true), "<|im_end|>");
    EXPECT_EQ(vocab->piece(2, false), "");
    EXPECT_EQ(vocab->detokenize(std::vector<int32_t>{2}, true), "<|im_end|>");
    EXPECT_EQ(vocab->bos(), 1);
    EXPECT_EQ(vocab->eos(), 2);
    EXPECT_TRUE(vocab->is_eog(2));
    EXPECT_FALSE(vocab->is_eog(1000));
    EXPECT_FALSE(vocab->add_bos());
    EXPECT_TRUE(has(error_of([&] { vocab->piece(49152, true); }), "Token 49152"));
    EXPECT_TRUE(has(error_of([&] { vocab->piece(-1, true); }), "Token -1"));
}

ChatTemplate template_of(const Vocab& vocab) {
    const auto text = [&](int32_t id) { return id < 0 ? "" : vocab.piece(id, true); };
    return {vocab.chat_template_source(), text(vocab.bos()), text(vocab.eos())};
}

TEST(Vocab, ChatTemplateOfSmolLM2) {
    NEED_VOCAB(vocab, kSmol);
    const ChatTemplate chat = template_of(*vocab);
    EXPECT_FALSE(chat.emits_bos() && vocab->add_bos());
    const std::string smol =
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n";
    EXPECT_EQ(chat.apply(Turns{{"user", "Hi"}}, true),
              smol + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(chat.apply(Turns{{"system", "S"}, {"user", "Hi"}}, false),
              "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    EXPECT_EQ(chat.apply(kTalk, true), render(built_in_template("chatml"), kTalk));
    EXPECT_EQ(vocab->tokenize("<|im_start|>user\nHi<|im_end|>\n", true, true).front(), 1);
}

TEST(Vocab, ChatTemplateOfQwen) {
    NEED_VOCAB(vocab, kQwen);
    const ChatTemplate chat = template_of(*vocab);
    EXPECT_FALSE(chat.emits_bos());
    EXPECT_EQ(chat.apply(Turns{{"user", "Hi"}}, true),
              "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
              "assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(chat.apply(kTalk, true), render(built_in_template("chatml"), kTalk));
    EXPECT_EQ(chat.apply(kTalk, false), render(built_in_template("chatml"), kTalk, false));
}

// ---- Sampler ----

struct Text {
    std::string text;
    bool ended = false;
};

/// Samples with the same pseudo-random logits at each step, as a model that knows nothing would.
Text generate(const Vocab& vocab, const SamplingOptions& options, int steps) {
    TokenSampler sampler(vocab, options, vocab.size());
    Text out;
    uint32_t state = 12345;
    std::vector<float> logits(static_cast<size_t>(vocab.size()));
    for (int i = 0; i < steps && !out.ended; ++i) {
        for (float& logit : logits) {
            state = state * 1664525U + 1013904223U;
            logit = static_cast<float>(state >> 8) / float(1 << 22);
        }
        const int32_t token = sampler.sample(logits);
        sampler.accept(token);
        out.text += vocab.piece(token, false);
        out.ended = vocab.is_eog(token);
    }
    return out;
}

TEST(Sampler, GreedyTakesTheLowerIdOfEqualLogits) {
    NEED_VOCAB(vocab, kSmol);
    TokenSampler sampler(*vocab, {}, vocab->size());
    std::vector<float> logits(49152, -1.0F);
    logits[700] = logits[300] = logits[40000] = 5.0F;
    EXPECT_EQ(sampler.sample(logits), 300);
    logits[40000] = 5.5F;
    EXPECT_EQ(sampler.sample(logits), 40000);
    logits[7] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(sampler.sample(logits), 40000);
    std::fill(logits.begin(), logits.end(), std::numeric_limits<float>::quiet_NaN());
    EXPECT_TRUE(has(error_of([&] { sampler.sample(logits); }), "49152 logits are NaN"));
    logits.pop_back();
    EXPECT_TRUE(has(error_of([&] { sampler.sample(logits); }), "got 49151 logits"));
    EXPECT_TRUE(has(error_of([&] { sampler.accept(49152); }), "Token 49152"));
}

TEST(Sampler, PaddedLogitsAreNeverDrawn) {
    NEED_VOCAB(vocab, kSmol);
    TokenSampler sampler(*vocab, {}, vocab->size() + 64);
    std::vector<float> logits(static_cast<size_t>(vocab->size()) + 64, 0.0F);
    logits.back() = 10.0F;
    logits[11] = 1.0F;
    EXPECT_EQ(sampler.sample(logits), 11);
}

TEST(Sampler, SeedsReproduce) {
    NEED_VOCAB(vocab, kSmol);
    SamplingOptions options;
    options.temp = 1.0F;
    options.seed = 7;
    const std::string first = generate(*vocab, options, 12).text;
    EXPECT_EQ(generate(*vocab, options, 12).text, first);
    options.seed = 8;
    EXPECT_NE(generate(*vocab, options, 12).text, first);

    options.seed = SamplingOptions::kRandomSeed;
    TokenSampler sampler(*vocab, options, vocab->size());
    EXPECT_NE(sampler.seed(), SamplingOptions::kRandomSeed);
    const std::vector<float> logits(49152, 0.0F);
    std::vector<int32_t> drawn;
    for (int i = 0; i < 5; ++i) drawn.push_back(sampler.sample(logits));
    sampler.reset();
    for (int i = 0; i < 5; ++i) EXPECT_EQ(sampler.sample(logits), drawn[static_cast<size_t>(i)]);
}

TEST(Sampler, TopKTopPMinP) {
    NEED_VOCAB(vocab, kSmol);
    std::vector<float> logits(49152, -20.0F);
    for (size_t i = 0; i < 10; ++i) logits[100 + i] = 1.0F - 0.01F * static_cast<float>(i);
    const auto drawn_range = [&](auto change) {
        SamplingOptions options;
        options.temp = 1.0F;
        options.seed = 3;
        change(options);
        TokenSampler sampler(*vocab, options, 49152);
        int32_t highest = 0;
        for (int i = 0; i < 60; ++i) highest = std::max(highest, sampler.sample(logits));
        return highest;
    };
    EXPECT_EQ(drawn_range([](SamplingOptions& o) { o.top_k = 1; }), 100);
    EXPECT_EQ(drawn_range([](SamplingOptions& o) { o.top_p = 0.0F; }), 100);
    EXPECT_EQ(drawn_range([](SamplingOptions& o) { o.min_p = 0.999F; }), 100);
    EXPECT_GT(drawn_range([](SamplingOptions&) {}), 104);
}

TEST(Sampler, PenaltiesChangeTheOutcome) {
    NEED_VOCAB(vocab, kSmol);
    std::vector<float> logits(49152, 0.0F);
    logits[50] = 2.0F;
    logits[60] = 1.9F;
    for (float SamplingOptions::*field :
         {&SamplingOptions::repeat_penalty, &SamplingOptions::presence_penalty,
          &SamplingOptions::frequency_penalty}) {
        SamplingOptions options;
        options.*field = 1.5F;
        options.repeat_last_n = 2;
        TokenSampler sampler(*vocab, options, 49152);
        EXPECT_EQ(sampler.sample(logits), 50);
        sampler.accept(50, /*generated=*/false);
        EXPECT_EQ(sampler.sample(logits), 60);
        sampler.accept(7);
        sampler.accept(8);  // 50 has left the window
        EXPECT_EQ(sampler.sample(logits), 50);
        sampler.accept(50);
        sampler.reset();
        EXPECT_EQ(sampler.sample(logits), 50);
    }
}

TEST(Sampler, IgnoreEosNeverEnds) {
    NEED_VOCAB(vocab, kSmol);
    std::vector<float> logits(49152, 0.0F);
    logits[2] = 9.0F;  // <|im_end|>
    logits[5000] = 1.0F;
    SamplingOptions options;
    EXPECT_EQ(TokenSampler(*vocab, options, 49152).sample(logits), 2);
    options.ignore_eos = true;
    EXPECT_EQ(TokenSampler(*vocab, options, 49152).sample(logits), 5000);
}

TEST(Sampler, GrammarForcesDigits) {
    for (const char* file : {kSmol, kQwen}) {
        NEED_VOCAB(vocab, file);
        for (const bool ignore_eos : {false, true}) {
            SamplingOptions options;
            options.grammar = "root ::= [0-9]{4} \"-\" [0-9]{2}\n";
            options.ignore_eos = ignore_eos;
            const Text out = generate(*vocab, options, 20);
            ASSERT_EQ(out.text.size(), 7U) << out.text;
            for (size_t i = 0; i < 7; ++i) {
                EXPECT_EQ(out.text[i] == '-', i == 4) << out.text;
                EXPECT_TRUE(i == 4 || (out.text[i] >= '0' && out.text[i] <= '9')) << out.text;
            }
            EXPECT_TRUE(out.ended);  // also with ignore_eos: nothing else fits
        }
    }
}

TEST(Sampler, GrammarRefusesAndResets) {
    NEED_VOCAB(vocab, kSmol);
    SamplingOptions options;
    options.grammar = "root ::= \"yes\" | \"no\"";
    TokenSampler sampler(*vocab, options, 49152);
    const int32_t no = vocab->tokenize("no", false, false).at(0);
    const int32_t dog = vocab->tokenize("dog", false, false).at(0);
    EXPECT_TRUE(has(error_of([&] { sampler.accept(dog); }), "does not fit the grammar"));
    EXPECT_TRUE(has(error_of([&] { sampler.accept(2); }), "does not fit the grammar"));  // an end
    sampler.accept(dog, /*generated=*/false);  // the prompt is not the grammar's business
    sampler.accept(no);
    std::vector<float> logits(49152, 0.0F);
    EXPECT_TRUE(vocab->is_eog(sampler.sample(logits)));
    sampler.accept(2);
    sampler.reset();
    EXPECT_FALSE(vocab->is_eog(sampler.sample(logits)));
}

TEST(Sampler, JsonSchemaForcesAnObject) {
    NEED_VOCAB(vocab, kSmol);
    SamplingOptions options;
    options.json_schema = R"({"type": "object", "properties": {"a": {"type": "integer",
        "minimum": 1, "maximum": 9}, "b": {"enum": ["x", "y"]}, "c": {"type": "boolean"}},
        "required": ["a", "b", "c"], "additionalProperties": false})";
    const Text out = generate(*vocab, options, 200);
    EXPECT_TRUE(out.ended);
    std::string tight;
    for (const char c : out.text) {
        if (c != ' ' && c != '\n' && c != '\t') tight += c;
    }
    ASSERT_GE(tight.size(), 22U) << out.text;
    EXPECT_EQ(tight.substr(0, 5), "{\"a\":") << out.text;
    EXPECT_TRUE(tight[5] >= '1' && tight[5] <= '9') << out.text;
    EXPECT_EQ(tight.substr(6, 6), ",\"b\":\"") << out.text;
    EXPECT_TRUE(has(tight, ",\"c\":true}") || has(tight, ",\"c\":false}")) << out.text;
}

TEST(Sampler, BadGrammarsAreUsageErrors) {
    NEED_VOCAB(vocab, kSmol);
    const std::string deep = "root ::= " + repeat("(", 100'000) + "\"a\"" + repeat(")", 100'000);
    std::string wide = "r40 ::= \"a\"\nroot ::= r0\n";
    for (int i = 0; i < 40; ++i) {
        const std::string next = "r" + std::to_string(i + 1);
        wide += "r" + std::to_string(i) + " ::= " + next + " | " + next + "\n";
    }
    const std::pair<std::string, std::string> cases[] = {
        {" ", "rule 'root' is not defined"},
        {"start ::= \"a\"", "rule 'root' is not defined"},
        {"root ::= missing", "line 1: rule 'missing' is used but not defined"},
        {"root ::= \"a\"\n\nx ::= y", "line 3: rule 'y' is used"},
        {"root ::= root \"a\"", "left-recursive"},
        {"root ::= b\nb ::= root \"a\" | \"b\"", "left-recursive"},
        {"root ::= n root \"a\"\nn ::= e e\ne ::= \"\" | \"x\"", "left-recursive"},
        {"root ::= (\"a\"?)? root \"a\"", "left-recursive"},
        {"root ::= \"a", "'\"' is missing"},
        {"root ::= [a-", "']' is missing"},
        {"root ::= \"\\q\"", "is not an escape"},
        {"root ::= \"\\x1\"", "2 hexadecimal digits"},
        {"root ::= (\"a\"", "')' is expected"},
        {"root ::= *", "nothing to repeat"},
        {"root ::= \"\"*", "nothing to repeat"},
        {"root ::= \"a\"{3,1}", "upper bound"},
        {"root ::= \"a\"{99999}", "over 2000"},
        {"root ::= (\"a\" \"b\"){99999999999999999999}", "over 2000"},
        {"root ::= (\"a\" | ((\"b\"))){1500}", "over 2000"},
        {"root ::= <no such token>", "is not one token"},
        {"root = \"a\"", "::= is expected"},
        {"::= \"a\"", "a rule's name is expected"},
        {"root ::= \"a\" ]", "']' is not expected"},
        {std::string("root ::= \"a\0\"", 13), "zero byte"},
        {deep, "over 100 parentheses"},
        {wide, "too many ways"},
    };
    for (const auto& [grammar, part] : cases) {
        SamplingOptions options;
        options.grammar = grammar;
        ::testing::internal::CaptureStderr();
        const std::string error = error_of([&] { TokenSampler(*vocab, options, 49152); });
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
        EXPECT_TRUE(error.starts_with("usage: --grammar ")) << grammar.substr(0, 60) << error;
        EXPECT_TRUE(has(error, part)) << grammar.substr(0, 60) << error;
    }
}

TEST(Sampler, GoodGrammarsAreTaken) {
    NEED_VOCAB(vocab, kSmol);
    for (const char* grammar :
         {"root ::= <|im_start|>+\n", "root ::= (<[1]> | !<[1]>)*", "root ::= .*",
          "# comment\nroot ::= (\"a\" | # more\n [^b-d\\]\\-] \n)+ x?\nx ::= \"\\u00e9\" \"\\n\"",
          "root ::= item{0,5} (\",\" item)* item{2,} item{3}\nitem ::= [a-z]+ | \"-\"\r\n",
          "root ::= \"a\"{0}", "root ::= \"\""}) {
        SamplingOptions options;
        options.grammar = grammar;
        ::testing::internal::CaptureStderr();
        EXPECT_EQ(error_of([&] { generate(*vocab, options, 3); }), "") << grammar;
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << grammar;
    }
}

TEST(Sampler, BadSchemasAndOptionsAreUsageErrors) {
    NEED_VOCAB(vocab, kSmol);
    for (const std::string& schema :
         {std::string("{"), std::string("[]"), std::string("{\"type\": \"frob\"}"),
          std::string("{\"$ref\": \"#/nowhere\"}"), repeat("[", 100'000),
          std::string("{\"type\": \"string\", \"pattern\": \"^(a)(?=b)$\"}"),
          std::string("{\"type\": \"array\", \"items\": {}, \"minItems\": 100000}")}) {
        SamplingOptions options;
        options.json_schema = schema;
        ::testing::internal::CaptureStderr();
        const std::string error = error_of([&] { TokenSampler(*vocab, options, 49152); });
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << schema.substr(0, 60);
        EXPECT_TRUE(error.starts_with("usage: --json-schema ")) << schema.substr(0, 60) << error;
    }
    const auto refused = [&](auto change) {
        SamplingOptions options;
        change(options);
        return error_of([&] { TokenSampler(*vocab, options, 49152); });
    };
    EXPECT_TRUE(has(refused([](auto& o) { o.temp = -1; }), "usage: --temp is -1"));
    EXPECT_TRUE(has(refused([](auto& o) { o.temp = NAN; }), "--temp"));
    EXPECT_TRUE(has(refused([](auto& o) { o.top_p = 1.5F; }), "--top-p"));
    EXPECT_TRUE(has(refused([](auto& o) { o.min_p = -0.1F; }), "--min-p"));
    EXPECT_TRUE(has(refused([](auto& o) { o.repeat_penalty = 0; }), "--repeat-penalty"));
    EXPECT_TRUE(has(refused([](auto& o) { o.repeat_last_n = -2; }), "--repeat-last-n"));
    EXPECT_TRUE(has(refused([](auto& o) { o.grammar = o.json_schema = "x"; }), "exclude"));
}

}  // namespace
}  // namespace winnow
