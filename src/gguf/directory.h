// What a GGUF file holds before its tensor data: metadata and the tensor directory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace winnow::gguf {

/// The value types of GGUF metadata; the numbers are those of the file.
enum class ValueType : std::uint32_t {
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    f32,
    boolean,
    string,
    array,
    u64,
    i64,
    f64
};

/// "u32", "string", ...
const char* value_type_name(ValueType type) noexcept;

/// One metadata entry; a view into the File it came from.
struct KeyValue {
    std::string_view key;
    ValueType type{};
    ValueType element_type{};            ///< of an array; equals `type` for a single value
    std::uint64_t count = 1;             ///< elements of an array; 1 for a single value
    std::span<const std::byte> payload;  ///< the bytes of the value or of all elements
};

/// One tensor of the directory. Its bytes are known to lie inside the file.
struct TensorEntry {
    std::string name;
    std::array<std::uint64_t, 4> dims{1, 1, 1, 1};  ///< dims[0] runs fastest, as in ggml
    std::uint32_t n_dims = 0;
    std::uint32_t type = 0;    ///< ggml type id, see find_tensor_type
    std::uint64_t offset = 0;  ///< from File::data_offset()
    std::uint64_t bytes = 0;
};

/// Everything before the tensor data, as views into the checked bytes.
struct Directory {
    std::uint32_t version = 0;
    std::uint32_t alignment = 32;
    std::uint64_t data_offset = 0;
    std::vector<KeyValue> values;
    std::vector<TensorEntry> tensors;
    std::unordered_map<std::string_view, std::size_t> value_index;
    std::unordered_map<std::string, std::size_t> tensor_index;
};

}  // namespace winnow::gguf
