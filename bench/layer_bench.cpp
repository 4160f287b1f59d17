// Decode attention over a whole model's layers, as a step calls it: planning, hand-over to the
// threads and merging included. SmolLM2-135M's shape unless said otherwise: 30 layers, 3 kv heads,
// 3 query heads each, D 64. us/layer is one attend() call.
//
//   build/bin/kernel_bench --benchmark_filter=decode
#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "attend/decode_attention.h"
#include "core/rope.h"

namespace winnow {
namespace {

struct Shape {
    int layers = 30, kv_heads = 3, group = 3, head_dim = 64;
};

SpanLayout layout_of(const std::string& name, int bits, const Shape& shape, const RopeTable* rope) {
    const Format& format = find_format(bits == 16 ? "none" : name);
    SpanLayout layout;
    layout.spec = {.format = &format,
                   .head_dim = shape.head_dim,
                   .bits_k = bits,
                   .bits_v = bits,
                   .key_axis = format.default_key_axis,
                   .value_axis = format.default_value_axis};
    layout.head_tokens = format.exact_head;
    layout.residual_length = bits == 16 ? 0 : 32;
    layout.rope = rope;
    return layout;
}

// A model's layers filled with random rows; all layers hold the same numbers in memory of their
// own.
class Cache {
  public:
    Cache(const std::string& format, int bits, const Shape& shape, int tokens)
        : rope_({.dims = shape.head_dim, .original_context = 8192}) {
        rope_.remember(tokens + 1);
        LayerKv kv(nullptr, std::vector<int>(shape.kv_heads, 0), tokens, shape.head_dim);
        const auto row = static_cast<std::size_t>(shape.kv_heads * shape.head_dim);
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> k(row), v(row);
        std::vector<std::vector<std::int32_t>> kept(shape.kv_heads);
        for (int t = 0; t < tokens; ++t) {
            for (std::size_t i = 0; i < row; ++i) {
                k[i] = normal(random);
                v[i] = normal(random);
            }
            kv.put(t, 1, k.data(), v.data(), 0);
            for (auto& head : kept) {
                head.push_back(t);
            }
        }
        const SpanLayout layout = layout_of(format, bits, shape, &rope_);
        stores_.push_back(std::make_unique<LayerStore>(
            layout, shape.kv_heads, shape.kv_heads * shape.group, LayerMemory{}, &meter_, &meter_));
        stores_[0]->rebuild(kv, kept);
        while (static_cast<int>(stores_.size()) < shape.layers) {
            stores_.push_back(stores_[0]->clone(&meter_, &meter_));
        }
    }
    const std::vector<std::unique_ptr<LayerStore>>& stores() const { return stores_; }
    std::size_t bytes() const { return stores_[0]->bytes() * stores_.size(); }

  private:
    MemoryMeter meter_;
    RopeTable rope_;
    std::vector<std::unique_ptr<LayerStore>> stores_;
};

void decode(benchmark::State& state, const std::string& format) {
    const Shape shape;
    const int bits = static_cast<int>(state.range(0)), tokens = static_cast<int>(state.range(1));
    const int threads = static_cast<int>(state.range(2));
    const Cache cache(format, bits, shape, tokens);
    const int heads = shape.kv_heads * shape.group;
    const std::vector<float> q(static_cast<std::size_t>(heads * shape.head_dim), 0.1F);
    std::vector<float> out(q.size());
    DecodeAttention attention(threads, heads, shape.head_dim);
    for (auto _ : state) {
        for (const auto& store : cache.stores()) {
            const DecodeItem item{.store = store.get(), .q = q.data(), .out = out.data()};
            attention.attend(std::span(&item, 1), 0.125F);
        }
    }
    const double steps = static_cast<double>(state.iterations());
    state.counters["GB/s"] = benchmark::Counter(steps * static_cast<double>(cache.bytes()) * 1e-9,
                                                benchmark::Counter::kIsRate);
    state.counters["us/layer"] = benchmark::Counter(
        steps * shape.layers * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void settings(benchmark::internal::Benchmark* b, std::vector<int> widths) {
    b->ArgNames({"bits", "tokens", "threads"})->UseRealTime()->MinTime(0.3);
    b->Unit(benchmark::kMillisecond);
    for (const int bits : widths) {
        for (const int tokens : {256, 1024, 4096, 7000, 16384}) {
            b->Args({bits, tokens, 1})->Args({bits, tokens, 2});
        }
    }
}

[[maybe_unused]] const bool registered = [] {
    const std::vector<int> packed = {8, 4, 3, 2};
    for (const Format* format : formats()) {
        const bool none = std::string(format->name) == "none";
        for (const int bits : none ? std::vector<int>{16} : packed) {
            FormatSpec spec = layout_of(format->name, bits, {}, nullptr).spec;
            try {
                format->check(spec);
            } catch (const std::exception&) {
                continue;  // not a width of this format
            }
            const std::string name = std::string("decode/") + format->name;
            settings(benchmark::RegisterBenchmark(
                         name.c_str(),
                         [format](benchmark::State& state) { decode(state, format->name); }),
                     {bits});
        }
    }
    return true;
}();

}  // namespace
}  // namespace winnow
