// sha256, by the implementation that llama.cpp carries.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace winnow {

/// 64 hex digits.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace winnow
