// The storage types a GGUF tensor may have, without ggml.
#pragma once

#include <cstdint>
#include <span>

namespace winnow::gguf {

/// One ggml type: `block_elements` neighbours of a row are stored in `block_bytes` bytes.
struct TensorType {
    std::uint32_t id;  ///< the number in the file, equal to ggml's `ggml_type`
    const char* name;  ///< ggml's own spelling, such as "q4_K"
    std::uint32_t block_elements;
    std::uint32_t block_bytes;
};

/// All types that GGUF files may hold, in the order of their ids.
std::span<const TensorType> tensor_types() noexcept;

/// The type with this id, or null when the id is unknown or was removed from ggml.
const TensorType* find_tensor_type(std::uint32_t id) noexcept;

/// For an id that ggml once had: the name of that type and what replaced it; else null.
const char* removed_tensor_type(std::uint32_t id) noexcept;

}  // namespace winnow::gguf
