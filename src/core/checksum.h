// A checksum of bytes that no one forges on purpose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace winnow {

/// XXH3, 64 bits.
std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace winnow
