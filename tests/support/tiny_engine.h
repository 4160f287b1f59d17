// A tiny random model for tests of the engine, and prompts for it.
#pragma once

#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/tiny_gguf.h"

namespace winnow::testing {

/// Three layers of four query and two kv heads, room for 8,192 tokens.
inline const TinyModelOptions kThreeLayers{.layers = 3,
                                           .query_heads = 4,
                                           .kv_heads = 2,
                                           .head_dim = 32,
                                           .embed = 64,
                                           .ff = 64,
                                           .context = 8192};

/// `n` tokens that every tiny model knows; equal for equal seeds.
inline std::vector<std::int32_t> random_prompt(int n, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < n; ++i) {
        tokens.push_back(static_cast<std::int32_t>(random() % 300));
    }
    return tokens;
}

/// Tests that share one model. `Suite` is the class itself, so that each has a model of its own,
/// and has a static kModel of TinyModelOptions.
template <class Suite>
class TinyEngine : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        path_ = ::testing::TempDir() + "winnow_" +
                ::testing::UnitTest::GetInstance()->current_test_suite()->name() + ".gguf";
        write_tiny_gguf(path_, Suite::kModel);
        model_ = Model::load(path_, {.threads = 1});
    }
    static void TearDownTestSuite() {
        model_.reset();
        std::remove(path_.c_str());
    }
    static std::vector<std::int32_t> prompt(int n, unsigned seed = 1) {
        return random_prompt(n, seed);
    }

    inline static std::string path_;
    inline static std::shared_ptr<const Model> model_;
};

}  // namespace winnow::testing
