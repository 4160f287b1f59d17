// How much memory this process could still get.
#pragma once

#include <cstdint>

namespace winnow {

/// Bytes the machine or the control group could still give. Pages of mapped files count as free.
std::uint64_t available_memory();

/// Bytes this process could still take once `mapped` bytes of files it has mapped are in memory,
/// within its limit of address space (ulimit -v).
std::uint64_t memory_beside(std::uint64_t mapped);

}  // namespace winnow
