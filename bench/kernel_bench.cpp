// The packed kernels against the memory bandwidth and the multiply-add peak of this machine, all
// measured in one run. Bytes per second count the packed cache only.
//
//   build/bin/kernel_bench --benchmark_filter=...
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "cache/format.h"
#include "core/threads.h"
#include "kernels/code_products.h"
#include "kernels/dense.h"
#include "kernels/isa.h"

namespace winnow {
namespace {

constexpr int kPieceTokens = 512;  // of a piece, as decode attention takes them

// Packed pieces of random rows, K and V end to end as in a span, and a step of attention over one.
struct Pieces {
    FormatSpec spec;
    std::size_t k_bytes, v_bytes, count;
    std::vector<std::uint8_t> k, v;

    Pieces(const std::string& format, int bits, int head_dim, std::size_t all_bytes) {
        spec.format = &find_format(bits == 16 ? "none" : format);
        spec.head_dim = head_dim;
        spec.bits_k = spec.bits_v = bits;
        spec.key_axis = spec.format->default_key_axis;
        spec.value_axis = spec.format->default_value_axis;
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> rows(static_cast<std::size_t>(kPieceTokens) * head_dim);
        for (float& x : rows) {
            x = normal(random);
        }
        k_bytes = spec.format->bytes(spec, Side::key, kPieceTokens);
        v_bytes = spec.format->bytes(spec, Side::value, kPieceTokens);
        count = std::max<std::size_t>(2, all_bytes / (k_bytes + v_bytes));
        k.resize(count * k_bytes);
        v.resize(count * v_bytes);
        spec.format->pack(spec, Side::key, rows.data(), kPieceTokens, nullptr, k.data());
        spec.format->pack(spec, Side::value, rows.data(), kPieceTokens, nullptr, v.data());
        for (std::size_t i = 1; i < count; ++i) {
            std::copy_n(k.data(), k_bytes, k.data() + i * k_bytes);
            std::copy_n(v.data(), v_bytes, v.data() + i * v_bytes);
        }
    }
};

// A thread's query and results.
struct PieceWork {
    int heads;
    std::vector<float> q, scores, out;

    PieceWork(int head_dim, int count)
        : heads(count),
          q(static_cast<std::size_t>(heads) * head_dim, 0.1F),
          scores(static_cast<std::size_t>(heads) * kPieceTokens),
          out(q.size()) {}

    void step(const Pieces& pieces, std::size_t i) {
        const Format& format = *pieces.spec.format;
        format.dot_k(pieces.spec,
                     {.data = pieces.k.data() + i * pieces.k_bytes, .tokens = kPieceTokens},
                     q.data(), heads, scores.data(), kPieceTokens);
        for (int r = 0; r < heads; ++r) {
            float* row = scores.data() + static_cast<std::size_t>(r) * kPieceTokens;
            exp_and_sum(row, kPieceTokens, max_of(row, kPieceTokens));
        }
        format.add_v(pieces.spec,
                     {.data = pieces.v.data() + i * pieces.v_bytes, .tokens = kPieceTokens},
                     scores.data(), kPieceTokens, heads, out.data());
    }
};

// A cache of `megabytes`, of which each thread takes neighbouring pieces.
void attention(benchmark::State& state, const std::string& format) {
    const int bits = static_cast<int>(state.range(0));
    const int head_dim = static_cast<int>(state.range(1));
    const int heads = static_cast<int>(state.range(2));
    const std::size_t megabytes = static_cast<std::size_t>(state.range(3));
    const int threads = static_cast<int>(state.range(4));
    const Pieces pieces(format, bits, head_dim, megabytes << 20);
    const std::size_t bytes = pieces.k.size() + pieces.v.size();
    std::vector<PieceWork> work(threads, PieceWork(head_dim, heads));
    for (auto _ : state) {
        parallel_for(threads, threads, [&](int part, int) {
            const std::size_t end = pieces.count * (part + 1) / threads;
            for (std::size_t i = pieces.count * part / threads; i < end; ++i) {
                work[part].step(pieces, i);
            }
        });
        benchmark::DoNotOptimize(work[0].out.data());
    }
    const double tokens = static_cast<double>(kPieceTokens) * static_cast<double>(pieces.count);
    const double steps = static_cast<double>(state.iterations());
    state.counters["GB/s"] =
        benchmark::Counter(steps * static_cast<double>(bytes) * 1e-9, benchmark::Counter::kIsRate);
    state.counters["GMAC/s"] = benchmark::Counter(steps * tokens * 2.0 * head_dim * heads * 1e-9,
                                                  benchmark::Counter::kIsRate);
    state.counters["ns/token"] = benchmark::Counter(
        steps * tokens * 1e-9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// Sum of a block far larger than the last cache level.
void read_bandwidth(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    std::vector<std::uint64_t> block(std::size_t{256} << 17);
    std::vector<std::uint64_t> sums(64);
    for (auto _ : state) {
        parallel_for(threads, 64, [&](int part, int) {
            const std::size_t n = block.size() / 64;
            std::uint64_t sum = 0;
            for (std::size_t i = part * n; i < (part + 1) * n; ++i) {
                sum += block[i];
            }
            sums[part] = sum;
        });
        benchmark::DoNotOptimize(sums.data());
    }
    state.counters["GB/s"] = benchmark::Counter(
        static_cast<double>(state.iterations()) * static_cast<double>(block.size()) * 8e-9,
        benchmark::Counter::kIsRate);
}

// A product whose operands stay in the first cache: the multiply-add roofline.
void multiply_add_peak(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    struct Panels {
        std::vector<float> a = std::vector<float>(24 * 64, 1e-3F);
        std::vector<float> b = std::vector<float>(64 * 64, 1e-3F);
        std::vector<float> c = std::vector<float>(24 * 64);
    };
    std::vector<Panels> panels(threads);
    for (auto _ : state) {
        parallel_for(threads, threads, [&](int i, int) {
            for (int round = 0; round < 500; ++round) {
                multiply(panels[i].a.data(), 64, panels[i].b.data(), 64, panels[i].c.data(), 64, 24,
                         64, 64, false);
            }
        });
        benchmark::DoNotOptimize(panels[0].c.data());
    }
    state.counters["GMAC/s"] = benchmark::Counter(
        static_cast<double>(state.iterations()) * threads * 500.0 * 24 * 64 * 64 * 1e-9,
        benchmark::Counter::kIsRate);
}

// The same for pairs of 16-bit integers: a strip of 8-bit weights that stays in the second cache.
void integer_multiply_add_peak(benchmark::State& state) {
    const int threads = static_cast<int>(state.range(0));
    constexpr int kColumns = 256, kTokens = 512;
    constexpr std::size_t kRowBytes = kColumns / 32 * 34;
    const auto rows = static_cast<std::size_t>(strip_rows());
    std::vector<float> rounded(rounded_floats(kColumns) * kTokens);
    const std::vector<float> x(kColumns, 0.5F);
    for (int t = 0; t < kTokens; ++t) {
        round_activations(x.data(), kColumns, rounded.data() + t * rounded_floats(kColumns));
    }
    struct Work {
        std::vector<std::uint8_t> weights, scratch;
        std::vector<float> out;
    };
    std::vector<Work> work(threads);
    for (Work& each : work) {
        each.weights.resize(rows * kRowBytes);
        each.scratch.resize(strip_bytes(kColumns));
        each.out.resize(rows * kTokens);
    }
    for (auto _ : state) {
        parallel_for(threads, threads, [&](int i, int) {
            Work& w = work[i];
            multiply_strip({.type = CodeType::q8_0,
                            .data = w.weights.data(),
                            .row_bytes = kRowBytes,
                            .columns = kColumns},
                           0, rounded.data(), kTokens, w.scratch.data(), w.out.data(), rows);
        });
        benchmark::DoNotOptimize(work[0].out.data());
    }
    state.counters["GMAC/s"] =
        benchmark::Counter(static_cast<double>(state.iterations()) * threads * kColumns * kTokens *
                               static_cast<double>(rows) * 1e-9,
                           benchmark::Counter::kIsRate);
}

void settings(benchmark::internal::Benchmark* b) {
    b->ArgNames({"bits", "D", "R", "MB", "threads"})->UseRealTime()->MinTime(0.2);
    for (int threads : {1, 2}) {
        for (int bits : {16, 8, 4, 3, 2}) {
            b->Args({bits, 64, 3, 128, threads});
        }
    }
    for (int bits : {16, 8, 4, 3, 2}) {
        for (int head_dim : {64, 128, 256}) {
            for (int heads : {1, 3, 4, 7, 8}) {
                b->Args({bits, head_dim, heads, 128, 2});
            }
        }
        b->Args({bits, 64, 3, 8, 1})->Args({bits, 64, 3, 8, 2});
    }
}

BENCHMARK(read_bandwidth)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(multiply_add_peak)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK(integer_multiply_add_peak)->Arg(1)->Arg(2)->UseRealTime();
BENCHMARK_CAPTURE(attention, kivi, "kivi")->Apply(settings);
BENCHMARK_CAPTURE(attention, hqq, "hqq")->Apply([](benchmark::internal::Benchmark* b) {
    b->ArgNames({"bits", "D", "R", "MB", "threads"})->UseRealTime()->MinTime(0.2);
    b->Args({4, 64, 3, 128, 2})->Args({2, 64, 3, 128, 2});
});

}  // namespace
}  // namespace winnow

int main(int argc, char** argv) {
    winnow::apply_forced_isa();
    benchmark::AddCustomContext("kernels", winnow::kernel_isa());
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
