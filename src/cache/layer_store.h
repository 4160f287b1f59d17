// One layer's cache: a span per kv head, the fitted data of its format, and what the policy
// remembers for its next decision.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/layer_kv.h"
#include "cache/span.h"

namespace winnow {

/// What a policy needs to keep from step to step while decoding.
struct LayerMemory {
    int window = 0;            ///< W queries in the ring; 0: none
    bool column_sums = false;  ///< running sums of attention received
};

class LayerStore {
  public:
    LayerStore(const SpanLayout& layout, int kv_heads, int query_heads, const LayerMemory& memory,
               MemoryMeter* cache, MemoryMeter* policy);
    LayerStore(const LayerStore&) = delete;
    LayerStore& operator=(const LayerStore&) = delete;

    const SpanLayout& layout() const { return layout_; }
    int kv_heads() const { return static_cast<int>(spans_.size()); }
    int query_heads() const { return query_heads_; }
    const Span& span(int g) const { return spans_[g]; }
    const float* side_data() const { return side_.empty() ? nullptr : side_.data(); }
    int longest() const;

    /// Adds one token's rows [G][D] f32 to every span. abs(x) > 65504 is clamped.
    void append(const float* k, const float* v, std::int32_t position);
    /// Adds the new tokens of `kv`; the older ones are those the spans hold already.
    void append(const LayerKv& kv);
    /// Keeps only kept[g] of the rows in `kv` (indices into head g's rows), packed anew.
    void rebuild(const LayerKv& kv, const std::vector<std::vector<std::int32_t>>& kept);
    /// All rows of head g, K post-RoPE: k, v [S][D], positions [S].
    void read(int g, f16* k, f16* v, std::int32_t* positions) const;

    /// Ring of the last W queries [W][H][D] as f16, post-RoPE.
    void push_query(const float* q);
    int queries() const { return queries_; }
    /// The remembered queries in time order, widened to f32 [queries()][H][D].
    void read_queries(float* out) const;

    bool has_sums() const { return memory_.column_sums; }
    /// Running sums of head g, [R][room] with room sums_stride(g); grown to hold the span.
    float* sums(int g);
    std::size_t sums_stride(int g) const { return sums_stride_[g]; }
    void replace_sums(int g, const float* from, std::size_t stride,
                      const std::vector<std::int32_t>& kept);

    std::size_t bytes() const;
    std::size_t policy_bytes() const;
    std::unique_ptr<LayerStore> clone(MemoryMeter* cache, MemoryMeter* policy) const;

  private:
    void fit(const LayerKv* kv, const std::vector<std::vector<std::int32_t>>* kept);
    void fit_on_tails();

    SpanLayout layout_;
    LayerMemory memory_;
    int query_heads_;
    MemoryMeter* cache_;
    MemoryMeter* policy_;
    std::vector<Span> spans_;
    Buffer<float> side_;
    bool fitted_ = false;
    Buffer<f16> ring_;  // [W][H][D]
    int queries_ = 0;
    int next_query_ = 0;
    std::vector<Buffer<float>> sums_;  // per kv head [R][stride]
    std::vector<std::size_t> sums_stride_;
};

}  // namespace winnow
