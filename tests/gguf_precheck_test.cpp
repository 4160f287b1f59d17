// Hostile and sound GGUF files against the check that runs before anything else reads them.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ggml.h"
#include "gguf/checks.h"
#include "gguf/precheck.h"
#include "support/gguf_bytes.h"
#include "support/gguf_refusal.h"

namespace winnow {
namespace {

using gguf::File;
using gguf::ValueType;
using testing::expect_refused;
using testing::Folder;
using testing::GgufBytes;
using testing::parse_refusal;
using testing::refusal;
using testing::sound_gguf;
using testing::write_file;

TEST(gguf_precheck, types_equal_those_of_ggml) {
    for (int id = 0; id < GGML_TYPE_COUNT + 8; ++id) {
        const auto* type = gguf::find_tensor_type(static_cast<std::uint32_t>(id));
        const bool known = id < GGML_TYPE_COUNT && ggml_blck_size(static_cast<ggml_type>(id)) != 0;
        ASSERT_EQ(type != nullptr, known) << id;
        if (!known) {
            EXPECT_EQ(gguf::removed_tensor_type(static_cast<std::uint32_t>(id)) != nullptr,
                      id < GGML_TYPE_COUNT);
            continue;
        }
        const auto theirs = static_cast<ggml_type>(id);
        EXPECT_EQ(type->block_elements, ggml_blck_size(theirs)) << id;
        EXPECT_EQ(type->block_bytes, ggml_type_size(theirs)) << id;
        EXPECT_STREQ(type->name, ggml_type_name(theirs));
    }
}

TEST(gguf_precheck, foreign_files_are_named) {
    const std::pair<std::string, const char*> cases[] = {
        {"", "empty"},
        {"GG", "starts with 'GG'"},
        {"hello, this is text", "'hell' instead of 'GGUF'"},
        {"PK\x03\x04zipzipzip", "zip archive"},
        {"\x1f\x8b\x08rest", "gzip"},
        {"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"},
        {"<!DOCTYPE html>", "web page"},
        {std::string("\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}", 26), "safetensors"},
        {"tjgg\x03", "GGJT"},
        {"FUGG\x03", "big-endian"},
        {std::string("GGUF\0\0\0\x03", 8), "big-endian"},
        {std::string("GGUF\1\0\0\0", 8), "version 1 is not known"},
        {std::string("GGUF\4\0\0\0", 8), "version 4 is not known"},
    };
    for (const auto& [bytes, part] : cases) expect_refused(bytes, part, part);
}

TEST(gguf_precheck, paths_that_are_no_files_are_refused) {
    const Folder folder;
    const auto open_refusal = [](const std::string& path) {
        return refusal([&] { File::open(path); }, std::filesystem::path(path).filename())
            .value_or("");
    };
    write_file(folder.file("empty.gguf"), "");
    std::filesystem::create_directory(folder.file("folder.gguf"));
    ASSERT_EQ(::mkfifo(folder.file("pipe.gguf").c_str(), 0600), 0);
    EXPECT_NE(open_refusal(folder.file("missing.gguf")).find("cannot be opened"), -1UL);
    EXPECT_NE(open_refusal(folder.file("empty.gguf")).find("empty"), -1UL);
    EXPECT_NE(open_refusal(folder.file("folder.gguf")).find("folder"), -1UL);
    EXPECT_NE(open_refusal(folder.file("pipe.gguf")).find("not a regular file"), -1UL);
    const std::string long_path = folder.file(std::string(200, 'x') + "/\n/y.gguf");
    EXPECT_NE(open_refusal(long_path), "");
}

using Change = std::function<void(GgufBytes&)>;

TEST(gguf_precheck, broken_metadata_is_refused) {
    const std::string nul("a\0b", 3);
    const std::pair<const char*, Change> cases[] = {
        {"at most 63 are allowed", [](auto& f) { f.extra_values = 1; }},
        {"the number of keys is", [](auto& f) { f.extra_values = 1 << 20; }},
        {"the number of keys is", [](auto& f) { f.extra_values = -100; }},
        {"too many for its", [](auto& f) { f.extra_tensors = 1 << 10; }},
        {"the number of tensors is", [](auto& f) { f.extra_tensors = -2; }},
        {"'x' occurs twice", [](auto& f) { f.u32("x", 1).u32("x", 1); }},
        {"is empty", [](auto& f) { f.u32("", 1); }},
        {"control byte: 'a?b'", [&](auto& f) { f.u32(nul, 1); }},
        {"unknown value type 13", [](auto& f) { f.raw("x", 13, 1); }},
        {"array of arrays", [](auto& f) { f.array("x", ValueType::array, 1, "12345678901234"); }},
        {"99999 elements", [](auto& f) { f.array("x", ValueType::u32, 99999, ""); }},
        {"18446744073709551615 elements",
         [](auto& f) { f.array("x", ValueType::string, -1ULL, ""); }},
        {"says it is", [](auto& f) { f.array("x", ValueType::string, 1, "\xff\xff\xff\xff!!!!"); }},
        {"cut short", [](auto& f) { f.raw("x", 8, std::uint64_t{1} << 29U); }},
        {"is of type i32; u32", [](auto& f) { f.raw("general.alignment", 5, 32); }},
        {"general.alignment is 0", [](auto& f) { f.u32("general.alignment", 0); }},
        {"general.alignment is 4", [](auto& f) { f.u32("general.alignment", 4); }},
        {"general.alignment is 48", [](auto& f) { f.u32("general.alignment", 48); }},
        {"general.alignment is 2097152", [](auto& f) { f.u32("general.alignment", 1U << 21U); }},
    };
    for (const auto& [part, change] : cases) {
        GgufBytes file = sound_gguf();
        change(file);
        expect_refused(file.bytes(), part, part);
    }
}

TEST(gguf_precheck, broken_tensors_are_refused) {
    const std::string long_name(64, 'n');
    const std::pair<const char*, Change> cases[] = {
        {"at most 63", [&](auto& f) { f.tensor(long_name, {8}, 0, 64); }},
        {"is empty", [](auto& f) { f.tensor("", {8}, 0, 64); }},
        {"control byte", [](auto& f) { f.tensor(std::string("t\0", 2), {8}, 0, 64); }},
        {"occurs twice", [](auto& f) { f.tensor("token_embd.weight", {8}, 0, 64); }},
        {"0 dimensions", [](auto& f) { f.tensor("t", {}, 0, 64); }},
        {"5 dimensions",
         [](auto& f) {
             f.tensor("t", {1, 1, 1, 1, 1}, 0, 64);
         }},
        {"has 0 as dimension 1",
         [](auto& f) {
             f.tensor("t", {8, 0}, 0, 64);
         }},
        {"overflows",
         [](auto& f) {
             f.tensor("t", {1ULL << 32U, 1ULL << 31U}, 0, 64);
         }},
        {"overflows", [](auto& f) { f.tensor("t", {1ULL << 63U}, 0, 64); }},
        {"more than the file", [](auto& f) { f.tensor("t", {1ULL << 62U}, 0, 64); }},
        {"type 4, the removed q4_2", [](auto& f) { f.tensor("t", {8}, 4, 64); }},
        {"type 43, which is unknown", [](auto& f) { f.tensor("t", {8}, 43, 64); }},
        {"q4_0 needs a multiple of 32", [](auto& f) { f.tensor("t", {48}, 2, 64); }},
        {"multiple of the alignment 32", [](auto& f) { f.tensor("t", {1}, 0, 68); }},
        {"64 is needed", [](auto& f) { f.tensor("t", {1}, 0, 32); }},
        {"64 is needed", [](auto& f) { f.tensor("t", {1}, 0, 96); }},
        {"ends at byte", [](auto& f) { f.tensor("t", {8}, 0, 64); }},
        {"ends at byte", [](auto& f) { f.data_bytes = 60; }},
        {"ends at byte", [](auto& f) { f.data_bytes = 0; }},
    };
    for (const auto& [part, change] : cases) {
        GgufBytes file = sound_gguf();
        change(file);
        expect_refused(file.bytes(), part, part);
    }
}

GgufBytes with_tokens(const std::vector<std::string>& tokens) {
    GgufBytes file;
    file.text("tokenizer.ggml.model", "gpt2").texts("tokenizer.ggml.tokens", tokens);
    file.texts("tokenizer.ggml.merges", {}).tensor("t", {8}, 0, 0);
    file.data_bytes = 32;
    return file;
}

TEST(gguf_precheck, broken_vocabularies_are_refused) {
    const std::vector<std::string> three = {"a", "b", ""};
    const auto scores = [](std::vector<float> list) {
        return [=](auto& f) { f.numbers("tokenizer.ggml.scores", ValueType::f32, list); };
    };
    const auto types = [](std::vector<std::int32_t> list) {
        return [=](auto& f) { f.numbers("tokenizer.ggml.token_type", ValueType::i32, list); };
    };
    struct Case {
        const char* part;
        std::vector<std::string> tokens;
        Change change;
    };
    const Change keep = [](auto&) {};
    const Case cases[] = {
        {"'a' twice, again as token 2", {"a", "b", "a"}, keep},
        {"'a' twice", {"a", std::string("a\0x", 3)}, keep},
        {"empty token 2", {"a", "[EMPTY_2]", ""}, keep},
        {"has 0 tokens", {}, keep},
        {"scores has 2 elements for 3", three, scores({0, 0})},
        {"token_type has 4 elements for 3", three, types({1, 1, 1, 1})},
        {"marked as a byte but is named 'b'", three, types({1, 6, 1})},
        {"an array of i32 is needed", three,
         [](auto& f) { f.u32("tokenizer.ggml.token_type", 1); }},
        {"f32 or i32", three, [](auto& f) { f.texts("tokenizer.ggml.scores", {"x"}); }},
        {"eos_token_id' is 3, but", three,
         [](auto& f) { f.u32("tokenizer.ggml.eos_token_id", 3); }},
        {"holds -1", three, [](auto& f) { f.raw("tokenizer.ggml.bos_token_id", 5, -1); }},
        {"'x.vocab_size' is of type", three,
         [](auto& f) { f.text("general.architecture", "x").text("x.vocab_size", "many"); }},
        {"x.vocab_size is 99999999", three,
         [](auto& f) { f.text("general.architecture", "x").u32("x.vocab_size", 99999999); }},
        {"holds a NUL byte", three,
         [](auto& f) { f.text("general.architecture", std::string("llama\0", 6)); }},
    };
    for (const Case& each : cases) {
        GgufBytes file = with_tokens(each.tokens);
        each.change(file);
        expect_refused(file.bytes(), each.part, each.part);
    }
    EXPECT_EQ(parse_refusal(with_tokens(three).bytes()), std::nullopt);
    GgufBytes merges = GgufBytes().text("tokenizer.ggml.merges", "a b");
    expect_refused(merges.bytes(), "an array of string is needed", "merges");
}

std::string repeated(std::string_view part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += part;
    return out;
}

TEST(gguf_precheck, chat_templates_are_bounded) {
    const std::string elifs = "{% if a %}" + repeated("{% elif b %}", 150) + "{% endif %}";
    const std::string bad[] = {
        "{{ " + repeated("(", 101),
        "{{ " + repeated("[", 50) + repeated("f(", 51),
        repeated("{% if a %}", 101),
        repeated("{%- for a in b -%}x", 101),
        repeated("{% set x %}", 101),
        repeated("{% set f(a=1) %}", 101),
        elifs,
        "{{ " + repeated("not ", 1001) + "a }}",
        "{{ a" + repeated("+a", 1001) + " }}",
        "{{ a" + repeated(" if a else a", 600) + " }}",
        // What looks like the end of a tag, but is not one to the parser.
        "{{ '}}' + " + repeated("(", 101),
        "{{ \"\\\"}}\" + " + repeated("(", 101),
        "{% { %}{% }} " + repeated("(", 101),
        "{% } %}{% }} " + repeated("(", 101),
        "{% if a %}{% generation %}" + repeated("{% endgeneration %}{% if a %}", 101),
    };
    for (const std::string& text : bad) {
        EXPECT_NE(gguf::template_problem(text), "") << text.substr(0, 60);
    }
    const std::string good[] = {
        "",
        "{",
        "{{",
        "{% if",
        "{{ '",
        "{{ '\\",
        "{# never closed (((",
        "text " + repeated("(", 500),
        "{# " + repeated("(", 500) + " #}{{ a }}",
        "{{ '" + repeated("(", 500) + "' }}",
        repeated("{{ f(a)[0]['b'] | trim }}", 500),
        repeated("{% if a %}{% elif b %}{% else %}{% endif %}", 500),
        repeated("{% set x = {'a': {'b': 1}} %}", 500),
        repeated("{% set x %}text{% endset %}", 500),
    };
    for (const std::string& text : good) EXPECT_EQ(gguf::template_problem(text), "") << text;

    GgufBytes named = GgufBytes().text("tokenizer.chat_template.tool_use", bad[0]);
    expect_refused(named.bytes(), "nested deeper than 100", "template");
    GgufBytes large = GgufBytes().text("tokenizer.chat_template", std::string((1 << 20) + 1, 'x'));
    expect_refused(large.bytes(), "1048577 bytes long", "template");
}

TEST(gguf_precheck, files_that_are_no_models_are_named) {
    const std::pair<const char*, Change> cases[] = {
        {"part 2 of 3 of a split model; merge",
         [](auto& f) {
             f.raw("split.no", 2, std::uint16_t{1}).raw("split.count", 2, std::uint16_t{3});
         }},
        {"LoRA adapter", [](auto& f) { f.text("general.type", "adapter"); }},
        {"LoRA adapter", [](auto& f) { f.text("adapter.type", "lora"); }},
        {"mmproj", [](auto& f) { f.text("general.type", "mmproj"); }},
        {"mmproj", [](auto& f) { f.raw("clip.has_vision_encoder", 7, true); }},
        {"imatrix", [](auto& f) { f.text("general.type", "imatrix"); }},
        {"general.type is 'poem'", [](auto& f) { f.text("general.type", "poem"); }},
    };
    for (const auto& [part, change] : cases) {
        GgufBytes file = sound_gguf();
        change(file);
        expect_refused(file.bytes(), part, part);
    }
    GgufBytes clip = GgufBytes().text("general.architecture", "clip");
    expect_refused(clip.bytes(), "mmproj", "clip");
    GgufBytes vocabulary = GgufBytes().text("general.architecture", "llama");
    expect_refused(vocabulary.bytes(), "holds no tensors", "vocabulary");
    GgufBytes tokenizer = GgufBytes().text("tokenizer.ggml.model", "rwkv").tensor("t", {8}, 0, 0);
    tokenizer.data_bytes = 32;
    expect_refused(tokenizer.bytes(), "tokenizer.ggml.model is 'rwkv'", "tokenizer");
    GgufBytes no_tokens = GgufBytes().text("tokenizer.ggml.model", "llama").tensor("t", {8}, 0, 0);
    no_tokens.data_bytes = 32;
    expect_refused(no_tokens.bytes(), "tokenizer.ggml.tokens is missing", "no tokens");
}

}  // namespace
}  // namespace winnow
