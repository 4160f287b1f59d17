// Products with quantised weights in 16-bit integers, for prefill: codes are widened to 16 bits
// and multiplied with activations rounded to 16 bits, block by block of 32. That is twice the
// multiply-adds of floats where the processor has vpdpwssd, and loses less than 2^-16 of the
// largest activation of a block, where ggml's own products keep 8 bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace winnow {

/// The block formats of GGUF that these products read.
enum class CodeType { q4_0, q4_1, q5_0, q8_0, q4_k, q6_k };

/// A weight matrix as the file stores it. `columns` is a multiple of 32, and of 256 for *_k.
struct StoredCodes {
    CodeType type = CodeType::q4_0;
    const std::uint8_t* data = nullptr;
    std::size_t row_bytes = 0;
    int columns = 0;
};

/// Whether the instruction set in use multiplies pairs of 16-bit integers, wide enough that it
/// beats a float product and ggml's own: from AVX2 on (docs/performance.md, AVX2).
bool code_products_pay();

/// Floats that a rounded row of activations takes: integers, a factor and a sum per block.
inline std::size_t rounded_floats(int columns) {
    const auto n = static_cast<std::size_t>(columns);
    return n / 2 + n / 16;
}
/// x [columns] -> out [rounded_floats(columns)].
void round_activations(const float* x, int columns, float* out);

/// Rows of weights that are multiplied at once.
int strip_rows();
/// Bytes of scratch for a strip, 64-byte aligned.
std::size_t strip_bytes(int columns);

/// out[token][i] = weights row first + i . activations of the token, for i < strip_rows().
void multiply_strip(const StoredCodes& weights, int first, const float* rounded, int tokens,
                    std::uint8_t* scratch, float* out, std::size_t out_stride);

}  // namespace winnow
