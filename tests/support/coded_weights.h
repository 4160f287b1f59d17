// What the tests of products with quantised weights share.
#pragma once

#include <ggml.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/code_products.h"
#include "kernels/isa.h"

namespace winnow::testing {

inline constexpr std::pair<CodeType, ggml_type> kCodeTypes[] = {
    {CodeType::q4_0, GGML_TYPE_Q4_0}, {CodeType::q4_1, GGML_TYPE_Q4_1},
    {CodeType::q5_0, GGML_TYPE_Q5_0}, {CodeType::q8_0, GGML_TYPE_Q8_0},
    {CodeType::q4_k, GGML_TYPE_Q4_K}, {CodeType::q6_k, GGML_TYPE_Q6_K}};

/// A test of its parameter, an instruction set.
class OnIsa : public ::testing::TestWithParam<std::string> {
  protected:
    void SetUp() override {
        force_isa(GetParam());
        ASSERT_EQ(kernel_isa(), GetParam());
    }
    void TearDown() override { force_isa(""); }

    /// Normal numbers, every 97th of them `spike` times as large.
    std::vector<float> numbers(std::size_t n, float spike) {
        std::normal_distribution<float> normal;
        std::vector<float> x(n);
        for (std::size_t i = 0; i < n; ++i) x[i] = normal(random_) * (i % 97 == 0 ? spike : 1.0F);
        return x;
    }
    std::mt19937 random_{3};
};

}  // namespace winnow::testing
