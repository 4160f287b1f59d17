// How much memory this process could still get.
#pragma once

#include <cstdint>

namespace winnow {

/// Bytes the machine or the control group could still give. Pages of mapped files count as free.
std::uint64_t available_memory();

/// Bytes this process may still map under its limit (ulimit -v); the largest number without one.
std::uint64_t address_space_left();

}  // namespace winnow
