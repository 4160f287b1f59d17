// Rotary position embedding outside the model graph: the same angles as ggml's rope, for formats
// that keep keys before RoPE and apply it when they read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace winnow {

/// How a model rotates: the parameters of ggml_rope_ext, and per-pair frequency factors.
struct RopeParams {
    int dims = 0;         ///< rotated channels of a head, even; the rest pass through
    bool halves = false;  ///< false: pairs (2i, 2i+1) as llama; true: (i, i + dims/2) as qwen2
    int original_context = 0;
    float freq_base = 10000.0F;
    float freq_scale = 1.0F;
    float ext_factor = 0.0F;   ///< YaRN mix of interpolated and extrapolated angles
    float attn_factor = 1.0F;  ///< YaRN magnitude
    float beta_fast = 32.0F;
    float beta_slow = 1.0F;
    std::vector<float> factors{};  ///< [dims/2] llama3-style divisors, or empty
};

/// cos and sin per position and pair; immutable, shared by layers.
class RopeTable {
  public:
    explicit RopeTable(const RopeParams& params);

    const RopeParams& params() const { return params_; }
    /// cos and sin of every pair at `position`, [dims/2] each, magnitude included.
    void angles(int position, float* cos, float* sin) const;
    /// The same for `count` positions, transposed: [dims/2][count]. Reads the table that
    /// remember() made where it reaches.
    void angles(const std::int32_t* positions, int count, float* cos, float* sin) const;
    /// Keeps the angles of the first `positions` positions, so that keys kept before RoPE are read
    /// without computing them again. Takes 4 * dims bytes per position. Not while others read.
    void remember(int positions);
    /// cos [dims/2], then sin [dims/2] of a position that remember() reached, else null.
    const float* known(int position) const {
        return position < known_ ? table_.data() + static_cast<std::size_t>(position) * params_.dims
                                 : nullptr;
    }
    /// Rotates one head's row [D] in place, as the model does.
    void rotate(float* row, int position) const;
    /// Undoes rotate(): scaled back and turned the other way.
    void unrotate(float* row, int position) const;

  private:
    RopeParams params_;
    float pair_ratio_ = 1.0F;          // angle of pair i + 1 over that of pair i
    std::vector<float> extrapolated_;  // [dims/2] YaRN's share of the unscaled angle, or empty
    float magnitude_ = 1.0F;
    int known_ = 0;             // positions in the table
    std::vector<float> table_;  // [known_][dims]: cos, then sin
};

}  // namespace winnow
