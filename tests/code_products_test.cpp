// Integer products against ggml's dequantised weights and a plain sum, on every instruction set.
#include "kernels/code_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dense.h"
#include "kernels/isa.h"
#include "support/coded_weights.h"

namespace winnow {
namespace {

using testing::kCodeTypes;

class CodeProductsTest : public testing::OnIsa {};

struct Scratch {
    explicit Scratch(std::size_t bytes)
        : data(static_cast<std::uint8_t*>(::operator new (bytes, std::align_val_t{64}))) {}
    ~Scratch() { ::operator delete (data, std::align_val_t{64}); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    std::uint8_t* data;
};

TEST_P(CodeProductsTest, EqualThePlainProductOfGgmlsWeights) {
    for (const auto& [type, ggml] : kCodeTypes) {
        const int block = static_cast<int>(ggml_blck_size(ggml));
        for (const int columns : {block, 3 * block, 1024}) {
            for (const int tokens : {1, 3, 4, 7}) {
                SCOPED_TRACE(std::string(ggml_type_name(ggml)) + ", " + std::to_string(columns) +
                             " columns, " + std::to_string(tokens) + " tokens");
                const int rows = 2 * strip_rows();
                const std::vector<float> source =
                    numbers(static_cast<std::size_t>(rows) * columns, 8.0F);
                const std::size_t row_bytes = ggml_row_size(ggml, columns);
                std::vector<std::uint8_t> stored(row_bytes * rows);
                ggml_quantize_chunk(ggml, source.data(), stored.data(), 0, rows, columns, nullptr);
                std::vector<float> weights(source.size());
                ggml_get_type_traits(ggml)->to_float(stored.data(), weights.data(),
                                                     static_cast<int64_t>(weights.size()));
                // Spikes, as hidden states have them, cost only their own block.
                const std::vector<float> x =
                    numbers(static_cast<std::size_t>(tokens) * columns, 300.0F);
                std::vector<float> rounded(rounded_floats(columns) * tokens);
                for (int t = 0; t < tokens; ++t) {
                    round_activations(x.data() + t * columns, columns,
                                      rounded.data() + t * rounded_floats(columns));
                }
                const Scratch scratch(strip_bytes(columns));
                const std::size_t stride = static_cast<std::size_t>(rows) + 5;
                std::vector<float> out(stride * tokens, -7.0F);
                const StoredCodes codes{.type = type,
                                        .data = stored.data(),
                                        .row_bytes = row_bytes,
                                        .columns = columns};
                for (int first = 0; first < rows; first += strip_rows()) {
                    multiply_strip(codes, first, rounded.data(), tokens, scratch.data,
                                   out.data() + first, stride);
                }
                for (int t = 0; t < tokens; ++t) {
                    for (int r = 0; r < rows; ++r) {
                        double sum = 0.0, bound = 0.0;
                        for (int b = 0; b < columns; b += 32) {
                            double peak = 0.0, largest = 0.0;
                            for (int c = b; c < b + 32; ++c) {
                                const double a = static_cast<double>(x[t * columns + c]);
                                const double w = static_cast<double>(weights[r * columns + c]);
                                sum += a * w;
                                peak = std::max(peak, std::fabs(a));
                                largest = std::max(largest, std::fabs(w));
                            }
                            // Half a unit for each code, which a minimum lets reach twice as far.
                            bound += peak * largest * 32.0 * 2.0 / 65534.0;
                        }
                        ASSERT_NEAR(out[t * stride + r], sum, bound + 1e-6)
                            << "token " << t << " row " << r;
                    }
                    for (std::size_t r = rows; r < stride; ++r) {
                        ASSERT_EQ(out[t * stride + r], -7.0F) << "wrote past the rows";
                    }
                }
            }
        }
    }
}

TEST_P(CodeProductsTest, ZerosGiveZerosAndNanStaysNan) {
    std::vector<float> x(64), rounded(rounded_floats(64));
    const int rows = strip_rows();
    std::vector<float> source(static_cast<std::size_t>(rows) * 64, 0.5F);
    std::vector<std::uint8_t> stored(ggml_row_size(GGML_TYPE_Q8_0, 64) * rows);
    ggml_quantize_chunk(GGML_TYPE_Q8_0, source.data(), stored.data(), 0, rows, 64, nullptr);
    const StoredCodes codes{.type = CodeType::q8_0,
                            .data = stored.data(),
                            .row_bytes = ggml_row_size(GGML_TYPE_Q8_0, 64),
                            .columns = 64};
    const Scratch scratch(strip_bytes(64));
    std::vector<float> out(rows);
    const auto multiply_row = [&] {
        round_activations(x.data(), 64, rounded.data());
        multiply_strip(codes, 0, rounded.data(), 1, scratch.data, out.data(), out.size());
    };
    multiply_row();
    EXPECT_EQ(out[0], 0.0F);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        x[40] = bad;
        multiply_row();
        EXPECT_TRUE(std::isnan(out[0])) << bad;
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, CodeProductsTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace winnow
