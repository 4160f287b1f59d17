// Builds the bytes of small GGUF files by hand, sound or broken on purpose. Needs no ggml.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/directory.h"

namespace winnow::testing {

/// Metadata first, then tensors, as they will stand in the file; bytes() puts the header before
/// them and the data after. Public fields override what the header would say.
class GgufBytes {
  public:
    using Type = gguf::ValueType;

    std::string magic = "GGUF";
    std::uint32_t version = 3;
    std::int64_t extra_tensors = 0;  ///< added to the count in the header
    std::int64_t extra_values = 0;
    std::uint64_t alignment = 32;  ///< of the data as written, not the key
    std::uint64_t data_bytes = 0;  ///< zeros after the header

    template <typename T>
    GgufBytes& raw(std::string_view key, std::uint32_t type, T value) {
        begin(key, type);
        put(values_, value);
        return *this;
    }
    GgufBytes& u32(std::string_view key, std::uint32_t value) { return raw(key, 4, value); }
    GgufBytes& f32(std::string_view key, float value) { return raw(key, 6, value); }
    GgufBytes& text(std::string_view key, std::string_view value) {
        begin(key, 8);
        put_text(values_, value);
        return *this;
    }
    /// An array whose header says `count`, followed by these bytes.
    GgufBytes& array(std::string_view key, Type element, std::uint64_t count,
                     std::string_view payload) {
        begin(key, 9);
        put(values_, static_cast<std::uint32_t>(element));
        put(values_, count);
        values_.append(payload);
        return *this;
    }
    GgufBytes& texts(std::string_view key, const std::vector<std::string>& list) {
        std::string payload;
        for (const std::string& each : list) put_text(payload, each);
        return array(key, Type::string, list.size(), payload);
    }
    template <typename T>
    GgufBytes& numbers(std::string_view key, Type element, const std::vector<T>& list) {
        return array(key, element, list.size(),
                     {reinterpret_cast<const char*>(list.data()), list.size() * sizeof(T)});
    }
    GgufBytes& tensor(std::string_view name, const std::vector<std::uint64_t>& dims,
                      std::uint32_t type, std::uint64_t offset) {
        ++n_tensors_;
        put_text(tensors_, name);
        put(tensors_, static_cast<std::uint32_t>(dims.size()));
        for (const std::uint64_t dim : dims) put(tensors_, dim);
        put(tensors_, type);
        put(tensors_, offset);
        return *this;
    }

    std::string bytes() const {
        std::string out = magic;
        put(out, version);
        put(out, n_tensors_ + extra_tensors);
        put(out, n_values_ + extra_values);
        out += values_ + tensors_;
        if (data_bytes != 0) {
            out.resize((out.size() + alignment - 1) / alignment * alignment + data_bytes);
        }
        return out;
    }

  private:
    void begin(std::string_view key, std::uint32_t type) {
        ++n_values_;
        put_text(values_, key);
        put(values_, type);
    }
    template <typename T>
    static void put(std::string& out, T value) {
        out.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    static void put_text(std::string& out, std::string_view value) {
        put(out, static_cast<std::uint64_t>(value.size()));
        out.append(value);
    }

    std::string values_;
    std::string tensors_;
    std::int64_t n_values_ = 0;
    std::int64_t n_tensors_ = 0;
};

/// A sound file with a small vocabulary and one f32 tensor of 8 x 2.
inline GgufBytes sound_gguf() {
    GgufBytes file;
    file.text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<0x0A>"})
        .numbers<float>("tokenizer.ggml.scores", gguf::ValueType::f32, {0, 0, 0, 0})
        .numbers<std::int32_t>("tokenizer.ggml.token_type", gguf::ValueType::i32, {1, 1, 1, 6})
        .texts("tokenizer.ggml.merges", {"a b"})
        .u32("tokenizer.ggml.bos_token_id", 3)
        .text("tokenizer.chat_template", "{% if messages %}{{ messages[0]['content'] }}{% endif %}")
        .tensor("token_embd.weight", {8, 2}, 0, 0);
    file.data_bytes = 64;
    return file;
}

}  // namespace winnow::testing
