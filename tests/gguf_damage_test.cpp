// Sound files are read right; cut and flipped ones are refused or read, but never crash.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gguf/precheck.h"
#include "support/gguf_bytes.h"
#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using gguf::File;
using gguf::ValueType;
using testing::bytes_of;
using testing::Folder;
using testing::GgufBytes;
using testing::parse_refusal;
using testing::refusal;
using testing::sound_gguf;
using testing::TinyModelOptions;
using testing::TinyRope;
using testing::TinyTokenizer;

TinyModelOptions small_model(const std::string& architecture, TinyTokenizer tokenizer) {
    TinyModelOptions options;
    options.architecture = architecture;
    options.tokenizer = tokenizer;
    options.layers = 1;
    options.embed = 64;
    options.head_dim = 16;
    options.ff = 64;
    return options;
}

TEST(gguf_damage, tiny_models_are_read) {
    const Folder folder;
    const std::string path = folder.file("tiny.gguf");
    for (const std::string arch : {"llama", "qwen2"}) {
        for (const auto tokenizer : {TinyTokenizer::none, TinyTokenizer::byte_bpe}) {
            TinyModelOptions options = small_model(arch, tokenizer);
            options.rope = TinyRope::llama3;
            options.type = GGML_TYPE_Q4_1;
            testing::write_tiny_gguf(path, options);
            const File file = File::open(path);
            gguf::refuse_unsupported(file);
            EXPECT_EQ(file.version(), 3U);
            EXPECT_EQ(file.alignment(), 32U);
            EXPECT_EQ(file.file_bytes(), std::filesystem::file_size(path));
            EXPECT_EQ(file.require_string("general.architecture"), arch);
            EXPECT_EQ(file.require_u32(arch + ".attention.head_count_kv"), 2U);
            EXPECT_EQ(file.array_size("tokenizer.ggml.tokens"),
                      tokenizer == TinyTokenizer::none ? 0U : 320U);
            EXPECT_EQ(file.has("tokenizer.chat_template"), tokenizer != TinyTokenizer::none);

            const auto& query = file.require_tensor("blk.0.attn_q.weight");
            EXPECT_EQ(query.n_dims, 2U);
            EXPECT_EQ(query.dims[0], 64U);
            EXPECT_EQ(query.type, 3U);
            EXPECT_EQ(query.bytes, 64U * 64U / 32U * 20U);
            EXPECT_EQ(file.find_tensor("blk.0.attn_k.bias") != nullptr, arch == "qwen2");
            EXPECT_EQ(file.find_tensor("no such tensor"), nullptr);
            EXPECT_TRUE(refusal([&] { file.require_tensor("gone"); }, "tiny.gguf").has_value());

            const auto norm = file.tensor_data(file.require_tensor("output_norm.weight"));
            ASSERT_EQ(norm.size(), 64 * sizeof(float));
            float first = 0;
            std::memcpy(&first, norm.data(), sizeof(first));
            EXPECT_NEAR(first, 1.0F, 0.6F);
        }
    }
}

TEST(gguf_damage, tiny_models_repeat_and_refuse_bad_options) {
    const Folder folder;
    TinyModelOptions options = small_model("qwen2", TinyTokenizer::byte_bpe);
    testing::write_tiny_gguf(folder.file("a"), options);
    testing::write_tiny_gguf(folder.file("b"), options);
    options.seed = 2;
    testing::write_tiny_gguf(folder.file("c"), options);
    EXPECT_EQ(testing::read_file(folder.file("a")), testing::read_file(folder.file("b")));
    EXPECT_NE(testing::read_file(folder.file("a")), testing::read_file(folder.file("c")));
    options.kv_heads = 3;
    EXPECT_THROW(testing::write_tiny_gguf(folder.file("d"), options), std::runtime_error);
    options = small_model("llama", TinyTokenizer::none);
    options.type = GGML_TYPE_Q4_K;
    EXPECT_THROW(testing::write_tiny_gguf(folder.file("d"), options), std::runtime_error);
}

/// A file with one key per value type; `bytes` must outlive it.
GgufBytes values_of_all_types() {
    const float infinity = std::numeric_limits<float>::infinity();
    return GgufBytes()
        .raw("u8", 0, std::uint8_t{200})
        .raw("i8", 1, std::int8_t{-3})
        .raw("u16", 2, std::uint16_t{60000})
        .raw("i16", 3, std::int16_t{300})
        .raw("u32", 4, std::uint32_t{4000000000U})
        .raw("i32", 5, std::int32_t{-70000})
        .f32("f32", 0.5F)
        .f32("infinity", infinity)
        .f32("nan", std::nanf(""))
        .raw("bool", 7, true)
        .text("string", "text")
        .raw("u64", 10, std::numeric_limits<std::uint64_t>::max())
        .raw("i64", 11, std::numeric_limits<std::int64_t>::min())
        .raw("f64", 12, 0.25)
        .raw("huge", 12, 1e300)
        .numbers<std::int16_t>("heads", ValueType::i16, {4, 2, 4})
        .numbers<std::int16_t>("negative", ValueType::i16, {4, -2})
        .numbers<float>("floats", ValueType::f32, {1.5F, 2.5F})
        .numbers<float>("nothing", ValueType::f32, {})
        .texts("texts", {"one", "", "three"});
}

TEST(gguf_damage, values_are_read) {
    const std::string bytes = values_of_all_types().bytes();
    const File file = File::parse(bytes_of(bytes), bytes.size(), "values.gguf");
    EXPECT_EQ(file.values().size(), 20U);
    EXPECT_EQ(file.require_u32("u8"), 200U);
    EXPECT_EQ(file.require_u32("u16"), 60000U);
    EXPECT_EQ(file.require_u32("i16"), 300U);
    EXPECT_EQ(file.get_u32("u32", 1), 4000000000U);
    EXPECT_EQ(file.get_u32("missing", 7), 7U);
    EXPECT_EQ(file.require_u64("u64"), std::numeric_limits<std::uint64_t>::max());
    EXPECT_EQ(file.get_u64("missing", 8), 8U);
    EXPECT_EQ(file.get_i64("i8", 0), -3);
    EXPECT_EQ(file.get_i64("i32", 0), -70000);
    EXPECT_EQ(file.get_i64("i64", 0), std::numeric_limits<std::int64_t>::min());
    EXPECT_EQ(file.get_i64("missing", -1), -1);
    EXPECT_EQ(file.require_f32("f32"), 0.5F);
    EXPECT_EQ(file.require_f32("f64"), 0.25F);
    EXPECT_EQ(file.require_f32("i8"), -3.0F);
    EXPECT_EQ(file.get_f32("missing", 2.0F), 2.0F);
    EXPECT_TRUE(file.require_bool("bool"));
    EXPECT_TRUE(file.get_bool("missing", true));
    EXPECT_EQ(file.require_string("string"), "text");
    EXPECT_EQ(file.get_string("missing", "none"), "none");
    EXPECT_EQ(file.array_size("heads"), 3U);
    EXPECT_EQ(file.array_size("missing"), 0U);
    EXPECT_EQ(file.get_u32_array("heads"), (std::vector<std::uint32_t>{4, 2, 4}));
    EXPECT_EQ(file.get_f32_array("floats"), (std::vector<float>{1.5F, 2.5F}));
    EXPECT_EQ(file.get_f32_array("heads"), (std::vector<float>{4, 2, 4}));
    EXPECT_TRUE(file.get_f32_array("nothing").empty());
    EXPECT_EQ(file.get_string_array("texts"), (std::vector<std::string_view>{"one", "", "three"}));
    EXPECT_EQ(file.per_layer_u32("heads", 3), (std::vector<std::uint32_t>{4, 2, 4}));
    EXPECT_EQ(file.per_layer_u32("u8", 2), (std::vector<std::uint32_t>{200, 200}));
    EXPECT_EQ(file.per_layer_u32("missing", 2, 5), (std::vector<std::uint32_t>{5, 5}));
}

TEST(gguf_damage, wrong_values_name_file_and_key) {
    const std::string bytes = values_of_all_types().bytes();
    const File file = File::parse(bytes_of(bytes), bytes.size(), "values.gguf");
    using Call = std::function<void()>;
    const std::tuple<const char*, const char*, Call> cases[] = {
        {"missing", "is missing", [&] { file.require_u32("missing"); }},
        {"missing", "is missing", [&] { file.require_string("missing"); }},
        {"missing", "is missing", [&] { file.per_layer_u32("missing", 2); }},
        {"i8", "holds -3", [&] { file.get_u32("i8", 1); }},
        {"u64", "from 0 to 4294967295", [&] { file.require_u32("u64"); }},
        {"u64", "at most", [&] { file.get_i64("u64", 1); }},
        {"f32", "of type f32; an integer", [&] { file.get_u32("f32", 1); }},
        {"bool", "of type bool; an integer", [&] { file.get_i64("bool", 1); }},
        {"string", "of type string; a number", [&] { file.require_f32("string"); }},
        {"nan", "holds nan", [&] { file.require_f32("nan"); }},
        {"infinity", "holds inf", [&] { file.get_f32("infinity", 1); }},
        {"huge", "holds 1e+300", [&] { file.require_f32("huge"); }},
        {"u8", "a boolean is needed", [&] { file.require_bool("u8"); }},
        {"u8", "a string is needed", [&] { file.require_string("u8"); }},
        {"heads", "array of i16; an integer", [&] { file.require_u32("heads"); }},
        {"heads", "3 elements for 4 layers", [&] { file.per_layer_u32("heads", 4); }},
        {"negative", "holds -2", [&] { file.get_u32_array("negative"); }},
        {"u8", "an array is needed", [&] { file.array_size("u8"); }},
        {"texts", "an integer is needed", [&] { file.get_u32_array("texts"); }},
        {"texts", "a number is needed", [&] { file.get_f32_array("texts"); }},
        {"heads", "array of strings is needed", [&] { file.get_string_array("heads"); }},
    };
    for (const auto& [key, part, call] : cases) {
        const auto message = refusal(call, "values.gguf");
        ASSERT_TRUE(message.has_value()) << key << " " << part;
        EXPECT_NE(message->find("'" + std::string(key) + "'"), std::string::npos) << *message;
        EXPECT_NE(message->find(part), std::string::npos) << *message;
    }
}

TEST(gguf_damage, version_2_and_other_alignments_are_read) {
    GgufBytes file = sound_gguf();
    file.version = 2;
    EXPECT_EQ(parse_refusal(file.bytes()), std::nullopt);
    file.alignment = 256;
    file.u32("general.alignment", 256);
    file.tensor("t", {2}, 0, 256);
    file.data_bytes = 256 + 8;
    EXPECT_EQ(parse_refusal(file.bytes()), std::nullopt);
}

TEST(gguf_damage, every_cut_of_a_header_is_refused) {
    const std::string bytes = sound_gguf().bytes();
    EXPECT_EQ(parse_refusal(bytes), std::nullopt);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        EXPECT_TRUE(parse_refusal(bytes.substr(0, length)).has_value()) << length;
    }
}

TEST(gguf_damage, cut_files_are_refused) {
    const Folder folder;
    const std::string path = folder.file("hostile.gguf");
    testing::write_tiny_gguf(path, small_model("llama", TinyTokenizer::byte_bpe));
    const auto size = std::filesystem::file_size(path);
    for (std::uint64_t length = (size - 1) / 4096 * 4096;; length -= 4096) {
        std::filesystem::resize_file(path, length);
        EXPECT_TRUE(refusal([&] { File::open(path); }, "hostile.gguf").has_value()) << length;
        if (length == 0) break;
    }
}

/// Reads everything that a sound file offers; only an Error may come out.
void read_everything(const File& file) {
    for (const auto& value : file.values()) {
        refusal([&] { file.require_u64(value.key); }, testing::kHostileName);
        refusal([&] { file.require_f32(value.key); }, testing::kHostileName);
        refusal([&] { file.require_string(value.key); }, testing::kHostileName);
        refusal([&] { file.get_f32_array(value.key); }, testing::kHostileName);
        refusal([&] { file.get_string_array(value.key); }, testing::kHostileName);
    }
    for (const auto& tensor : file.tensors()) {
        EXPECT_LE(file.data_offset() + tensor.offset + tensor.bytes, file.file_bytes());
        EXPECT_EQ(file.tensor_data(tensor).size(), tensor.bytes);
    }
}

int flip_bits(const std::string& sound, std::size_t region, int rounds, std::uint32_t seed) {
    std::mt19937 random(seed);
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
        std::string bytes = sound;
        for (std::uint32_t flips = 1 + random() % 4; flips > 0; --flips) {
            bytes[random() % region] ^= static_cast<char>(1U << random() % 8);
        }
        const auto message = refusal(
            [&] {
                read_everything(File::parse(bytes_of(bytes), bytes.size(), testing::kHostileName));
            },
            testing::kHostileName);
        refused += message.has_value() ? 1 : 0;
    }
    return refused;
}

TEST(gguf_damage, flipped_bits_never_crash) {
    const std::string small = sound_gguf().bytes();
    EXPECT_GT(flip_bits(small, small.size() - 64, 4000, 7), 2000);

    const Folder folder;
    testing::write_tiny_gguf(folder.file("tiny"), small_model("qwen2", TinyTokenizer::byte_bpe));
    const std::string bytes = testing::read_file(folder.file("tiny"));
    const auto header =
        File::parse(bytes_of(bytes), bytes.size(), testing::kHostileName).data_offset();
    EXPECT_GT(flip_bits(bytes, header, 500, 8), 50);
}

}  // namespace
}  // namespace winnow
