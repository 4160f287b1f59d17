// Running mean and covariance of a layer's queries before RoPE.
#pragma once

#include <cstdint>
#include <vector>

#include "core/memory.h"

namespace winnow {

class Archive;
class RopeTable;

/// Sums are taken token by token, so they do not depend on how a prompt is cut into chunks, and per
/// head, so they do not depend on the thread count. The first query is taken off all of them: a
/// common offset much larger than their spread would swallow the covariance.
class QueryMoments {
  public:
    QueryMoments() = default;
    /// Tokens before position `skip` are left out. Takes H (D + D + D (D + 1) / 2) floats.
    QueryMoments(MemoryMeter* meter, int heads, int head_dim, int skip);

    /// Adds queries [count][H][D], post-RoPE, of positions `position`, `position` + 1, ..
    void add(const float* q, int count, int position, const RopeTable& rope, int threads);
    int count() const { return count_; }
    /// mean [H][D] and covariance [H][D][D], divided by the count; zeros where it is 0.
    void read(std::vector<float>& mean, std::vector<float>& covariance) const;
    std::size_t bytes() const { return sums_.bytes(); }
    QueryMoments clone(MemoryMeter* meter) const;
    void transfer(Archive& archive);

  private:
    std::size_t head_floats() const {
        return static_cast<std::size_t>(dims_) * 2 +
               static_cast<std::size_t>(dims_) * (dims_ + 1) / 2;
    }
    int heads_ = 0, dims_ = 0, skip_ = 0, count_ = 0;
    Buffer<float> sums_;  // per head: offset [D], sum [D], products [D (D + 1) / 2] by rows
};

}  // namespace winnow
