// Chat templates: built-in ones, those of real models, and hostile ones.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "text_vocab.h"

namespace winnow {
namespace {

using Turns = std::vector<ChatTurn>;

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

}  // namespace
}  // namespace winnow
