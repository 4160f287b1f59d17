#include "core/checksum.h"

#define XXH_INLINE_ALL
#include <hash/xxhash/xxhash.h>

namespace winnow {

std::uint64_t checksum(std::span<const std::byte> bytes) {
    return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace winnow
