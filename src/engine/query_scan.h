// The observing queries' scores over one kv head's tokens, a block of tokens at a time, so that the
// memory does not grow with the prompt.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/compress.h"
#include "kernels/dense.h"

namespace winnow {

/// Some queries' scores over some tokens.
struct ScanBlock {
    int first = 0;            ///< its first token
    int count = 0;            ///< tokens
    int row = 0;              ///< its first query: index among window * R, by time and then by head
    int rows = 0;             ///< queries
    std::size_t columns = 0;  ///< stride of scores: count, padded
    float* scores = nullptr;  ///< [rows][columns] q.k / sqrt(D); may be overwritten
    /// How many of the block's tokens query i of it sees: no later ones.
    int visible(int i) const {
        return std::clamp(newest + (row + i) / group + 1 - first, 0, count);
    }
    int newest = 0, group = 1;
};

class QueryScan {
  public:
    static constexpr int kBlockTokens = 512;  ///< a multiple of kColumnBlock

    QueryScan(const Session::Impl& session, const LayerView& view, int g);

    int rows() const { return rows_; }
    int dims() const { return dims_; }
    int tokens() const { return head_->tokens; }
    const LayerKv::Head& head() const { return *head_; }
    /// Row stride of values(): D, padded.
    std::size_t width() const { return width_; }
    const float* query(int row) const {
        return queries_.data() + static_cast<std::size_t>(row) * dims_;
    }
    /// Rows [count][width()] of V of the block being scanned.
    const float* values();
    /// The same transposed, [D][columns].
    const float* values_transposed();

    /// Calls visit(block) for every block of tokens, and in it for all queries, a few at a time.
    template <class Visit>
    void run(Visit&& visit) {
        for (int first = 0; first < tokens(); first += kBlockTokens) {
            load(first);
            for (int row = 0; row < rows_; row += most_) {
                visit(scores_of(row));
            }
        }
    }

  private:
    void load(int first);
    ScanBlock scores_of(int row);

    const LayerKv::Head* head_;
    int dims_, group_, window_, rows_, most_;
    std::size_t width_;
    int first_ = 0, count_ = 0;
    bool values_here_ = false, transposed_here_ = false;
    std::vector<float> queries_;  // [rows][D], times 1 / sqrt(D)
    std::vector<float> keys_, values_, transposed_, scores_;
};

/// One query's softmax as it grows block by block.
struct RunningSoftmax {
    float best = -std::numeric_limits<float>::infinity();
    double total = 0.0;

    /// Turns `scores` [visible] into exp(score - best); what was summed before shrinks by the
    /// factor that is returned.
    double add(float* scores, int visible) {
        if (visible == 0) {
            return 1.0;
        }
        const float top = std::max(best, max_of(scores, visible));
        const double shrink = std::exp(static_cast<double>(best) - static_cast<double>(top));
        total = total * shrink + static_cast<double>(exp_and_sum(scores, visible, top));
        best = top;
        return shrink;
    }
};

}  // namespace winnow
