// Rows of normal variables in codes of 0 to 8 bits, eight neighbours at a time, with one byte of
// scale for the row.
#pragma once

#include <cstdint>
#include <vector>

namespace winnow {

/// By bits, of a normal variable of variance 1: the best uniform step, and what it loses (Max
/// 1960).
inline constexpr float kNormalStep[] = {1.0F, 1.596F, 0.9957F, 0.586F, 0.335F, 0, 0, 0, 0.0308F};
inline constexpr float kNormalLoss[] = {1.0F, 0.3634F, 0.1188F, 0.0374F, 0.0115F, 0, 0, 0, 1e-4F};

/// A byte i of scale means 2^((i - kScaleZero) / kScalesPerOctave).
inline constexpr int kScaleZero = 128;
inline constexpr float kScalesPerOctave = 8.0F;
/// All 256 scales, so that reading a row computes no power.
const float* scale_bytes();
/// The byte whose scale is nearest to s, in octaves.
int nearest_scale_byte(float s);

/// How a row is coded: channel d has b_d bits,
///
///     code = clamp(round(u / (s * step) + (2^b - 1) / 2), 0, 2^b - 1), step = kNormalStep[b]
///
/// An error counts by what its bits lose, for they were shared out such that errors weigh alike.
class BunchedRow {
  public:
    /// bits [dims / 8]: 0, 2, 3, 4 or 8 per bunch of 8 neighbours.
    BunchedRow(const std::uint8_t* bits, int dims);

    /// Writes the codes of u [dims], bunch by bunch as kernels/restore.h reads them, and returns
    /// the byte of the scale to restore them with: the codes are those of the s whose error is
    /// least, and the scale is s times what makes the slope of the restored row over u one, up to
    /// two bytes above.
    std::uint8_t pack(const float* u, std::uint8_t* out) const;

  private:
    float code(float u, int i, float s) const;
    float error(const float* u, float s, float& longer) const;

    std::vector<int> bits_;
    std::vector<float> step_, most_, weight_;
};

}  // namespace winnow
