// Codes that index a small table of levels, as kvquant stores them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace winnow {

/// out[i] = offset + scale * levels[code i] for one run of `count` codes as cache/code_pack.h
/// stripes them; levels is [2^bits], count a multiple of 8. Run-time dispatch; any bits from 2 to 8
/// but 3 bits are read by the scalar loop.
void restore_levels(const std::uint8_t* run, int bits, int count, const float* levels, float scale,
                    float offset, float* out);

namespace reference {
void restore_levels(const std::uint8_t* run, int bits, int count, const float* levels, float scale,
                    float offset, float* out);
}  // namespace reference

}  // namespace winnow
