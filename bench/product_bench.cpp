// Products of decoding, as they lie in the file, over weights larger than the last cache level:
// ours beside ggml's own. GB/s counts the weights once per step, whatever the tokens.
//
//   build/bin/kernel_bench --benchmark_filter=rows
#include <benchmark/benchmark.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/threads.h"
#include "kernels/row_products.h"

namespace winnow {
namespace {

struct Type {
    CodeType code;
    ggml_type ggml;
};
constexpr Type kTypes[] = {{CodeType::q4_1, GGML_TYPE_Q4_1},
                           {CodeType::q4_0, GGML_TYPE_Q4_0},
                           {CodeType::q5_0, GGML_TYPE_Q5_0},
                           {CodeType::q8_0, GGML_TYPE_Q8_0}};
constexpr int kColumns = 1536, kPanel = 512;

// Rows of `megabytes`, of which one panel is quantised and the others are copies.
struct Matrix {
    std::size_t row_bytes;
    int rows;
    std::vector<std::uint8_t> data;

    Matrix(ggml_type type, std::size_t megabytes) : row_bytes(ggml_row_size(type, kColumns)) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> source(static_cast<std::size_t>(kPanel) * kColumns);
        for (float& x : source) {
            x = normal(random);
        }
        std::vector<std::uint8_t> panel(row_bytes * kPanel);
        ggml_quantize_chunk(type, source.data(), panel.data(), 0, kPanel, kColumns, nullptr);
        const std::size_t panels = (megabytes << 20) / panel.size() + 1;
        for (std::size_t i = 0; i < panels; ++i) {
            data.insert(data.end(), panel.begin(), panel.end());
        }
        rows = static_cast<int>(panels) * kPanel;
    }
};

void count(benchmark::State& state, const Matrix& matrix, int tokens) {
    const double steps = static_cast<double>(state.iterations());
    state.counters["GB/s"] = benchmark::Counter(
        steps * static_cast<double>(matrix.data.size()) * 1e-9, benchmark::Counter::kIsRate);
    state.counters["GMAC/s"] =
        benchmark::Counter(steps * static_cast<double>(matrix.rows) * kColumns * tokens * 1e-9,
                           benchmark::Counter::kIsRate);
}

void ours(benchmark::State& state, const Type& type) {
    const int tokens = static_cast<int>(state.range(0)), threads = static_cast<int>(state.range(1));
    const Matrix matrix(type.ggml, 96);
    const std::vector<float> x(kColumns, 0.5F);
    std::vector<float> rounded(rounded_floats(kColumns) * tokens);
    for (int t = 0; t < tokens; ++t) {
        round_for_rows(type.code, x.data(), kColumns,
                       rounded.data() + t * rounded_floats(kColumns));
    }
    std::vector<float> out(static_cast<std::size_t>(matrix.rows) * tokens);
    const StoredCodes codes{.type = type.code,
                            .data = matrix.data.data(),
                            .row_bytes = matrix.row_bytes,
                            .columns = kColumns};
    for (auto _ : state) {
        parallel_for(threads, threads, [&](int i, int) {
            const int share = matrix.rows / threads;
            multiply_rows(codes, i * share, share, rounded.data(), tokens, out.data(),
                          static_cast<std::size_t>(matrix.rows));
        });
        benchmark::DoNotOptimize(out.data());
    }
    count(state, matrix, tokens);
}

void ggmls(benchmark::State& state, const Type& type) {
    const int threads = static_cast<int>(state.range(0));
    const Matrix matrix(type.ggml, 96);
    const auto& traits = *ggml_get_type_traits_cpu(type.ggml);
    const std::vector<float> x(kColumns, 0.5F);
    std::vector<std::uint8_t> rounded(ggml_row_size(traits.vec_dot_type, kColumns));
    ggml_get_type_traits_cpu(traits.vec_dot_type)->from_float(x.data(), rounded.data(), kColumns);
    std::vector<float> out(matrix.rows);
    for (auto _ : state) {
        parallel_for(threads, threads, [&](int i, int) {
            const int share = matrix.rows / threads;
            for (int row = i * share; row < (i + 1) * share; ++row) {
                traits.vec_dot(kColumns, &out[row], 0, matrix.data.data() + row * matrix.row_bytes,
                               0, rounded.data(), 0, 1);
            }
        });
        benchmark::DoNotOptimize(out.data());
    }
    count(state, matrix, 1);
}

[[maybe_unused]] const bool registered = [] {
    ggml_cpu_init();
    for (const Type& type : kTypes) {
        const std::string name = ggml_type_name(type.ggml);
        auto* mine = benchmark::RegisterBenchmark(
            ("rows/" + name).c_str(), [type](benchmark::State& state) { ours(state, type); });
        mine->ArgNames({"tokens", "threads"})->UseRealTime()->MinTime(0.2);
        for (const int tokens : {1, 2, 4, 8}) {
            mine->Args({tokens, 1})->Args({tokens, 2});
        }
        auto* rival = benchmark::RegisterBenchmark(
            ("rows_ggml/" + name).c_str(), [type](benchmark::State& state) { ggmls(state, type); });
        rival->ArgNames({"threads"})->UseRealTime()->MinTime(0.2)->Arg(1)->Arg(2);
    }
    return true;
}();

}  // namespace
}  // namespace winnow
