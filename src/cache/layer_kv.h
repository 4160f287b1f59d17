// One layer's K and V at full length: the only uncompressed cache there ever is, alive while
// prefill works on that layer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/f16.h"
#include "core/memory.h"

namespace winnow {

/// Per kv head a run of rows [T_g][D] of K (post-RoPE) and V, f16, in kept order. Heads may hold
/// different numbers of older tokens; the new ones are common to all.
class LayerKv {
  public:
    struct Head {
        f16* k = nullptr;                   // [T_g][D]
        f16* v = nullptr;                   // [T_g][D]
        std::int32_t* positions = nullptr;  // [T_g]
        int kept = 0;                       // older tokens at the front
        int tokens = 0;                     // T_g: kept + new
    };

    /// Room for kept[g] older and `fresh` new tokens per head; counted by `meter`.
    LayerKv(MemoryMeter* meter, std::span<const int> kept, int fresh, int head_dim);

    int head_dim() const { return head_dim_; }
    int kv_heads() const { return static_cast<int>(heads_.size()); }
    const Head& head(int g) const { return heads_[g]; }
    std::span<const Head> heads() const { return heads_; }

    /// Stores rows [count][G][D] as new tokens `first`.. of every head, positions counting up
    /// from `position`. abs(x) > 65504 is clamped; NaN throws a failure Error.
    void put(int first, int count, const float* k, const float* v, int position);

  private:
    int head_dim_ = 0;
    std::vector<Head> heads_;
    Buffer<f16> rows_;
    Buffer<std::int32_t> positions_;
};

}  // namespace winnow
