#include "text/sha256.h"

#include <hash/hash.h>

namespace winnow {

std::string sha256_hex(std::span<const std::byte> bytes) {
    return hash_sha256_hex(bytes.data(), bytes.size());
}

}  // namespace winnow
