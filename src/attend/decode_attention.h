// Attention of one new token per session over a layer's packed cache, which is never unpacked.
#pragma once

#include <span>
#include <vector>

#include "cache/layer_store.h"

namespace winnow {

/// One session's share of a decode step in one layer.
struct DecodeItem {
    LayerStore* store = nullptr;  // its running sums grow where the policy keeps them
    const float* q = nullptr;     // [H][D], post-RoPE
    float* out = nullptr;         // [H][D]
    float factor = 1.0F;          // on what its weights add to running sums
};

/// The R query heads of a kv head share one pass over its K and V. Work is split over pieces of
/// spans, so that one long head fills all threads; partial results (output, maximum, denominator)
/// are merged in order, so the result is the same for any thread count.
class DecodeAttention {
  public:
    DecodeAttention(int threads, int query_heads, int head_dim);

    /// `scale` is the factor on q.k.
    void attend(std::span<const DecodeItem> items, float scale);

  private:
    // A stretch of one kv head's tokens that one thread attends to in one go.
    struct Piece {
        int item = 0;
        int g = 0;
        int tier = 0;
        int first = 0;  // index among the tokens of the tier's span
        int tokens = 0;
        const std::uint8_t* k = nullptr;
        const std::uint8_t* v = nullptr;
        bool exact = false;    // f16 rows
        float* raw = nullptr;  // [R][stride] scores kept for running sums, or null
        std::size_t raw_stride = 0;
        const DecodeItem* source = nullptr;
    };

    template <class Body>
    void each_piece(const Body& body);
    void plan(std::span<const DecodeItem> items);
    void plan_span(Piece piece, float* raw);
    void run(const Piece& piece, float* partial, float scale, int thread);
    void merge(const DecodeItem& item, int g, std::span<const Piece> pieces);

    int threads_, query_heads_, head_dim_;
    std::vector<Piece> pieces_;
    std::vector<float> partials_;                      // [pieces][R][D + 2]
    std::vector<float> raw_;                           // raw scores where running sums are kept
    std::vector<std::vector<float>> work_;             // per thread: q, scores
    std::vector<std::vector<std::int32_t>> counting_;  // per thread: positions of gapless spans
};

}  // namespace winnow
