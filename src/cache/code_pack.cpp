#include "cache/code_pack.h"

namespace winnow {
namespace {

// One plane of Width bits; the codes' bits from Shift on.
template <int Width, int Shift>
void pack_plane(const std::uint8_t* codes, int count, std::uint8_t* out) {
    const int stride = count * Width / 8;
    constexpr unsigned kMask = (1U << Width) - 1U;
    for (int i = 0; i < stride; ++i) {
        unsigned byte = 0;
        for (int stripe = 0; stripe < 8 / Width; ++stripe) {
            byte |= (codes[stripe * stride + i] >> Shift & kMask) << (stripe * Width);
        }
        out[i] = static_cast<std::uint8_t>(byte);
    }
}

// The first plane (Shift 0) sets the codes, a later one adds its bits.
template <int Width, int Shift, typename Code>
void unpack_plane(const std::uint8_t* packed, int count, Code* codes) {
    const int stride = count * Width / 8;
    constexpr int kMask = (1 << Width) - 1;
    for (int stripe = 0; stripe < 8 / Width; ++stripe) {
        Code* out = codes + stripe * stride;
        for (int i = 0; i < stride; ++i) {
            const auto part = static_cast<Code>((packed[i] >> (stripe * Width) & kMask) << Shift);
            out[i] = Shift == 0 ? part : static_cast<Code>(out[i] + part);
        }
    }
}

template <typename Code>
void unpack_run(int bits, const std::uint8_t* packed, int count, Code* codes) {
    switch (bits) {
        case 2:
            return unpack_plane<2, 0>(packed, count, codes);
        case 3:
            unpack_plane<2, 0>(packed, count, codes);
            return unpack_plane<1, 2>(packed + count / 4, count, codes);
        case 4:
            return unpack_plane<4, 0>(packed, count, codes);
        default:
            return unpack_plane<8, 0>(packed, count, codes);
    }
}

// Code `index` of one plane.
int plane_code(int width, const std::uint8_t* packed, int count, int index) {
    const int stride = count * width / 8;
    return packed[index % stride] >> (index / stride * width) & ((1 << width) - 1);
}

}  // namespace

void pack_codes(int bits, const std::uint8_t* codes, int count, std::uint8_t* out) {
    switch (bits) {
        case 2:
            return pack_plane<2, 0>(codes, count, out);
        case 3:
            pack_plane<2, 0>(codes, count, out);
            return pack_plane<1, 2>(codes, count, out + count / 4);
        case 4:
            return pack_plane<4, 0>(codes, count, out);
        default:
            return pack_plane<8, 0>(codes, count, out);
    }
}

void unpack_codes(int bits, const std::uint8_t* packed, int count, std::uint8_t* codes) {
    unpack_run(bits, packed, count, codes);
}

void unpack_codes(int bits, const std::uint8_t* packed, int count, float* codes) {
    unpack_run(bits, packed, count, codes);
}

int unpack_code(int bits, const std::uint8_t* packed, int count, int index) {
    if (bits != 3) return plane_code(bits, packed, count, index);
    return plane_code(2, packed, count, index) | plane_code(1, packed + count / 4, count, index)
                                                     << 2;
}

}  // namespace winnow
