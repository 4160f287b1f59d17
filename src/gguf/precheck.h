// Checked access to a GGUF file. Nothing else reads a model file before File has verified it.
#pragma once

#include <winnow/error.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/directory.h"
#include "gguf/tensor_types.h"

namespace winnow::gguf {

/// A GGUF file whose header, metadata, tensor directory, vocabulary tables and chat templates
/// have been verified. Reading is thread-safe. Every member that throws gives an Error of kind
/// failure that names the file and, where there is one, the key or tensor.
class File {
  public:
    /// Maps the file read-only and checks it. The mapping lives as long as the File.
    static File open(const std::string& path);

    /// Checks the first bytes of a file of `file_bytes` bytes. `head` must outlive the File.
    static File parse(std::span<const std::byte> head, std::uint64_t file_bytes, std::string name);

    File(File&&) noexcept = default;
    File& operator=(File&&) noexcept = default;
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() = default;

    const std::string& path() const noexcept { return path_; }
    std::uint64_t file_bytes() const noexcept { return file_bytes_; }
    /// The checked bytes: the whole file when it was opened, the head when it was parsed.
    std::span<const std::byte> bytes() const noexcept { return head_; }
    std::uint32_t version() const noexcept { return directory_.version; }
    /// Tensors start at multiples of this; a power of two from 8 to 1 MiB.
    std::uint32_t alignment() const noexcept { return directory_.alignment; }
    std::uint64_t data_offset() const noexcept { return directory_.data_offset; }
    std::span<const KeyValue> values() const noexcept { return directory_.values; }
    std::span<const TensorEntry> tensors() const noexcept { return directory_.tensors; }

    /// Null when the file has no such tensor.
    const TensorEntry* find_tensor(std::string_view name) const;
    const TensorEntry& require_tensor(std::string_view name) const;
    /// The tensor's bytes in the mapping; throws for a parsed head that does not reach them.
    std::span<const std::byte> tensor_data(const TensorEntry& tensor) const;

    bool has(std::string_view key) const { return find(key) != nullptr; }
    /// Null when the file has no such key.
    const KeyValue* find(std::string_view key) const;

    // A missing key gives the fallback. A key of the wrong type, an integer that does not fit, a
    // float that is not finite or a string with a NUL byte throws. Integers of any width are read
    // alike, floats from f32, f64 or integers.
    std::uint32_t get_u32(std::string_view key, std::uint32_t fallback) const;
    std::uint64_t get_u64(std::string_view key, std::uint64_t fallback) const;
    std::int64_t get_i64(std::string_view key, std::int64_t fallback) const;
    float get_f32(std::string_view key, float fallback) const;
    bool get_bool(std::string_view key, bool fallback) const;
    std::string get_string(std::string_view key, std::string_view fallback) const;

    // The same, but a missing key throws.
    std::uint32_t require_u32(std::string_view key) const;
    std::uint64_t require_u64(std::string_view key) const;
    float require_f32(std::string_view key) const;
    bool require_bool(std::string_view key) const;
    std::string require_string(std::string_view key) const;

    /// The number of elements; 0 when the key is missing; throws when it is not an array.
    std::uint64_t array_size(std::string_view key) const;
    // A missing key gives an empty vector; elements are checked like single values.
    std::vector<std::uint32_t> get_u32_array(std::string_view key) const;
    std::vector<float> get_f32_array(std::string_view key) const;
    /// Views into the file, valid as long as the File.
    std::vector<std::string_view> get_string_array(std::string_view key) const;
    /// A key that holds one integer for all layers or an array of exactly `layers` integers, such
    /// as <arch>.attention.head_count. `fallback` stands for a missing key; without it, throws.
    std::vector<std::uint32_t> per_layer_u32(std::string_view key, std::uint32_t layers,
                                             std::optional<std::uint32_t> fallback = {}) const;

    /// An Error about this file: "'<path>': <sentence>", without line breaks.
    Error error(std::string_view sentence) const;

  private:
    File() = default;
    const KeyValue& require(std::string_view key) const;

    std::shared_ptr<const void> mapping_;
    std::string path_;
    std::uint64_t file_bytes_ = 0;
    std::span<const std::byte> head_;
    Directory directory_;
};

/// Throws for sound GGUF files that are not a whole language model: one part of a split model, an
/// adapter, a projector, an importance matrix, a bare vocabulary, a tokenizer of unknown kind.
void refuse_unsupported(const File& file);

}  // namespace winnow::gguf
