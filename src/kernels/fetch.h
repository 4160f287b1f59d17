// Prefetching for kernels that stream through memory once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace winnow {

/// Asks for `bytes` bytes that lie `ahead` bytes after `from`, into the second cache. The
/// processor's own prefetcher stops at every page of 4 KiB, and kernels that compute between their
/// loads wait for memory there: without this one thread took twice as long over a cache beyond L3.
/// Into the first cache it gains half of that, since few misses may be under way there. Memory that
/// is not there may be asked for. (Always inline: GCC drops calls of a function that only
/// prefetches.)
[[gnu::always_inline]] inline void fetch_ahead(const void* from, std::size_t ahead,
                                               std::size_t bytes) {
    const auto begin = reinterpret_cast<std::uintptr_t>(from) + ahead;
    for (std::size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(reinterpret_cast<const void*>(begin + i), 0, 2);
    }
}

}  // namespace winnow
