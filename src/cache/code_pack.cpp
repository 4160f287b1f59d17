#include "cache/code_pack.h"

#include <cstring>

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

// The same over 16-bit words, for a run of 8 rows.
template <int Width, int Shift>
void pack_words(const std::uint8_t* codes, int lanes, std::uint8_t* out) {
    const int words = lanes * Width / 2;
    constexpr unsigned kMask = (1U << Width) - 1U;
    for (int i = 0; i < words; ++i) {
        unsigned word = 0;
        for (int stripe = 0; stripe < 16 / Width; ++stripe) {
            word |= (codes[stripe * words + i] >> Shift & kMask) << (stripe * Width);
        }
        const auto stored = static_cast<std::uint16_t>(word);
        std::memcpy(out + 2 * i, &stored, sizeof stored);
    }
}

template <int Width, int Shift>
void unpack_words(const std::uint8_t* packed, int lanes, std::uint8_t* codes) {
    const int words = lanes * Width / 2;
    constexpr int kMask = (1 << Width) - 1;
    for (int stripe = 0; stripe < 16 / Width; ++stripe) {
        std::uint8_t* out = codes + stripe * words;
        for (int i = 0; i < words; ++i) {
            std::uint16_t word;
            std::memcpy(&word, packed + 2 * i, sizeof word);
            const int part = (word >> (stripe * Width) & kMask) << Shift;
            out[i] = static_cast<std::uint8_t>(Shift == 0 ? part : out[i] + part);
        }
    }
}

// Element `index` of one plane of a run.
int word_code(int width, const std::uint8_t* plane, int lanes, int index) {
    const int words = lanes * width / 2;
    std::uint16_t word;
    std::memcpy(&word, plane + 2 * (index % words), sizeof word);
    return word >> (index / words * width) & ((1 << width) - 1);
}

constexpr int kRunRows = 8;
constexpr int kMaxLanes = 1024;

}  // namespace

void pack_panel(int bits, const std::uint8_t* codes, int rows, int lanes, std::uint8_t* out) {
    std::uint8_t run[kRunRows * kMaxLanes];  // in the order of pairs
    for (int row = 0; row < rows; row += kRunRows, codes += kRunRows * lanes) {
        for (int i = 0; i < kRunRows; ++i) {
            std::uint8_t* to = run + i / 2 * 2 * lanes + i % 2;
            for (int lane = 0; lane < lanes; ++lane) to[2 * lane] = codes[i * lanes + lane];
        }
        switch (bits) {
            case 2:
                pack_words<2, 0>(run, lanes, out);
                break;
            case 3:
                pack_words<2, 0>(run, lanes, out);
                pack_words<1, 2>(run, lanes, out + 2 * lanes);
                break;
            case 4:
                pack_words<4, 0>(run, lanes, out);
                break;
            default:
                pack_words<8, 0>(run, lanes, out);
        }
        out += packed_bytes(bits, kRunRows * lanes);
    }
}

void unpack_panel(int bits, const std::uint8_t* packed, int rows, int lanes, std::uint8_t* codes) {
    std::uint8_t run[kRunRows * kMaxLanes];
    for (int row = 0; row < rows; row += kRunRows, codes += kRunRows * lanes) {
        switch (bits) {
            case 2:
                unpack_words<2, 0>(packed, lanes, run);
                break;
            case 3:
                unpack_words<2, 0>(packed, lanes, run);
                unpack_words<1, 2>(packed + 2 * lanes, lanes, run);
                break;
            case 4:
                unpack_words<4, 0>(packed, lanes, run);
                break;
            default:
                unpack_words<8, 0>(packed, lanes, run);
        }
        packed += packed_bytes(bits, kRunRows * lanes);
        for (int i = 0; i < kRunRows; ++i) {
            const std::uint8_t* from = run + i / 2 * 2 * lanes + i % 2;
            for (int lane = 0; lane < lanes; ++lane) codes[i * lanes + lane] = from[2 * lane];
        }
    }
}

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

int panel_code(int bits, const std::uint8_t* packed, int lanes, int row, int lane) {
    const std::uint8_t* run = packed + packed_bytes(bits, row / kRunRows * kRunRows * lanes);
    const int index = row % kRunRows / 2 * 2 * lanes + 2 * lane + row % 2;
    if (bits != 3) return word_code(bits, run, lanes, index);
    return word_code(2, run, lanes, index) | word_code(1, run + 2 * lanes, lanes, index) << 2;
}

}  // namespace winnow
