// Packing of B-bit codes, B in {2, 3, 4, 8}. One rule for every width, made for wide registers:
// a run of n codes is striped, not packed neighbour by neighbour. A plane of b bits takes n*b/8
// bytes; code e sits in byte e % (n*b/8) at bit (e / (n*b/8)) * b. So at 4 bits the low nibbles
// are the first half of the run and the high nibbles the second, at 2 bits there are four
// quarters, and one shift and one mask give whole vectors of consecutive codes. 3 bits are a
// 2-bit plane (the low bits) followed by a 1-bit plane (the high bit).
//
// A panel [rows][lanes] is what integer kernels read (kernels/panel-inl.h). Eight rows at a time
// are one run, whose codes are ordered by pairs of rows: (0, lane 0), (1, lane 0), (0, lane 1), ..
// then rows 2 and 3, and so on. The run is striped as above, but over 16-bit words: a plane of b
// bits has lanes*b/2 words, code e sits in word e % words at bit (e / words) * b. A shift and a
// mask then leave two rows of a lane in one 32-bit lane, which a multiply-add of pairs takes.
// (Byte stripes of one row were tried first: codes had to be widened to floats, four times the
// instructions. Bytes of four rows suit vpdpbusd, but then coefficients have 8 bits.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace winnow {

/// Bytes of a run of `count` codes; `count` is a multiple of 8.
inline std::size_t packed_bytes(int bits, int count) {
    return static_cast<std::size_t>(bits) * static_cast<std::size_t>(count) / 8;
}

/// Packs one run of `count` codes, each below 2^bits.
void pack_codes(int bits, const std::uint8_t* codes, int count, std::uint8_t* out);

/// The codes of one run, as bytes or as floats (what the kernels multiply with).
void unpack_codes(int bits, const std::uint8_t* packed, int count, std::uint8_t* codes);
void unpack_codes(int bits, const std::uint8_t* packed, int count, float* codes);

/// Code i of a run of `count`.
inline int run_code(int bits, const std::uint8_t* packed, int count, int i) {
    const int low = bits == 3 ? 2 : bits, plane = count * low / 8;
    const int code = packed[i % plane] >> (i / plane * low) & ((1 << low) - 1);
    if (bits != 3) return code;
    const int eighth = count / 8;  // the high bits lie in a plane of their own
    return code | (packed[plane + i % eighth] >> (i / eighth) & 1) << 2;
}

/// Packs codes [rows][lanes], both multiples of 8, into packed_bytes(bits, rows * lanes).
void pack_panel(int bits, const std::uint8_t* codes, int rows, int lanes, std::uint8_t* out);
/// The codes of a panel, [rows][lanes].
void unpack_panel(int bits, const std::uint8_t* packed, int rows, int lanes, std::uint8_t* codes);
/// One code of a panel.
int panel_code(int bits, const std::uint8_t* packed, int lanes, int row, int lane);

}  // namespace winnow
