// Products with few tokens against ggml's dequantised weights and a plain sum, on every
// instruction set.
#include "kernels/row_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dense.h"
#include "kernels/isa.h"
#include "support/coded_weights.h"

namespace winnow {
namespace {

using testing::kCodeTypes;

class RowProductsTest : public testing::OnIsa {};

// A quantised matrix, and what it means.
struct Matrix {
    CodeType type;
    int rows, columns;
    std::vector<std::uint8_t> stored;
    std::vector<float> weights;

    Matrix(CodeType code_type, ggml_type ggml, int r, int c, const std::vector<float>& source)
        : type(code_type), rows(r), columns(c), stored(ggml_row_size(ggml, c) * r) {
        ggml_quantize_chunk(ggml, source.data(), stored.data(), 0, rows, columns, nullptr);
        weights.resize(source.size());
        ggml_get_type_traits(ggml)->to_float(stored.data(), weights.data(),
                                             static_cast<int64_t>(weights.size()));
    }
    StoredCodes codes() const {
        return {.type = type,
                .data = stored.data(),
                .row_bytes = stored.size() / static_cast<std::size_t>(rows),
                .columns = columns};
    }
    std::vector<float> rounded(const std::vector<float>& x, int tokens) const {
        std::vector<float> out(rounded_floats(columns) * tokens);
        for (int t = 0; t < tokens; ++t) {
            round_for_rows(type, x.data() + t * columns, columns,
                           out.data() + t * rounded_floats(columns));
        }
        return out;
    }
    // The product in double, and how far 16-bit activations may take it off.
    std::pair<double, double> exact(const float* x, int row) const {
        double sum = 0.0, bound = 0.0;
        for (int b = 0; b < columns; b += 32) {
            double peak = 0.0, largest = 0.0;
            for (int c = b; c < b + 32; ++c) {
                const double a = static_cast<double>(x[c]);
                const double w = static_cast<double>(weights[row * columns + c]);
                sum += a * w;
                peak = std::max(peak, std::fabs(a));
                largest = std::max(largest, std::fabs(w));
            }
            bound += peak * largest * 32.0 * 2.0 / 65534.0;
        }
        return {sum, bound + 1e-6};
    }
};

TEST_P(RowProductsTest, EqualThePlainProductOfGgmlsWeights) {
    for (const auto& [type, ggml] : kCodeTypes) {
        if (!has_row_products(type)) continue;
        const int block = static_cast<int>(ggml_blck_size(ggml));
        for (const int columns : {block, 3 * block, 1024}) {
            const int rows = 13;
            const Matrix matrix(type, ggml, rows, columns,
                                numbers(static_cast<std::size_t>(rows) * columns, 8.0F));
            for (const int tokens : {1, 2, 3, 8, 11}) {
                SCOPED_TRACE(std::string(ggml_type_name(ggml)) + ", " + std::to_string(columns) +
                             " columns, " + std::to_string(tokens) + " tokens");
                const std::vector<float> x =
                    numbers(static_cast<std::size_t>(tokens) * columns, 300.0F);
                const std::vector<float> rounded = matrix.rounded(x, tokens);
                const std::size_t stride = rows + 3;
                std::vector<float> out(stride * tokens, -7.0F);
                // In two uneven pieces, the second from a row in the middle.
                multiply_rows(matrix.codes(), 0, 6, rounded.data(), tokens, out.data(), stride);
                multiply_rows(matrix.codes(), 6, rows - 7, rounded.data(), tokens, out.data(),
                              stride);
                for (int t = 0; t < tokens; ++t) {
                    for (int r = 0; r + 1 < rows; ++r) {
                        const auto [sum, bound] = matrix.exact(x.data() + t * columns, r);
                        ASSERT_NEAR(out[t * stride + r], sum, bound)
                            << "token " << t << " row " << r;
                    }
                    for (std::size_t r = rows - 1; r < stride; ++r) {
                        ASSERT_EQ(out[t * stride + r], -7.0F) << "wrote past the rows";
                    }
                }
            }
        }
    }
}

TEST_P(RowProductsTest, AreTheSameBitsInAnyCompany) {
    for (const auto& [type, ggml] : kCodeTypes) {
        if (!has_row_products(type)) continue;
        const int rows = 9, columns = 512, tokens = 15;
        const Matrix matrix(type, ggml, rows, columns, numbers(rows * columns, 8.0F));
        const std::vector<float> rounded = matrix.rounded(numbers(tokens * columns, 30.0F), tokens);
        std::vector<float> together(rows * tokens), alone(rows * tokens);
        multiply_rows(matrix.codes(), 0, rows, rounded.data(), tokens, together.data(), rows);
        for (int t = 0; t < tokens; ++t) {
            for (int r = 0; r < rows; ++r) {
                multiply_rows(matrix.codes(), r, 1, rounded.data() + t * rounded_floats(columns), 1,
                              alone.data() + t * rows, rows);
            }
        }
        EXPECT_EQ(together, alone) << ggml_type_name(ggml);
    }
}

TEST_P(RowProductsTest, ZerosGiveZerosAndNanStaysNan) {
    for (const auto& [type, ggml] : kCodeTypes) {
        if (!has_row_products(type)) continue;
        const Matrix matrix(type, ggml, 3, 256, numbers(3 * 256, 1.0F));
        std::vector<float> x(256), out(3, 5.0F);
        multiply_rows(matrix.codes(), 0, 3, matrix.rounded(x, 1).data(), 1, out.data(), 3);
        EXPECT_EQ(out, std::vector<float>(3, 0.0F)) << ggml_type_name(ggml);
        for (const float bad :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
            x[40] = bad;
            multiply_rows(matrix.codes(), 0, 3, matrix.rounded(x, 1).data(), 1, out.data(), 3);
            EXPECT_TRUE(std::isnan(out[0])) << ggml_type_name(ggml) << " " << bad;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, RowProductsTest, ::testing::ValuesIn(available_isas()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace winnow
