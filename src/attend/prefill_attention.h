// Attention of a chunk of prompt tokens over one layer's full K and V.
#pragma once

#include "cache/layer_kv.h"
#include "core/memory.h"

namespace winnow {

/// A chunk of queries. Query i of the chunk sees the kept tokens of its head and the new tokens up
/// to and including number first + i.
struct PrefillQueries {
    const float* q = nullptr;  // [count][H][D], post-RoPE
    int count = 0;
    int first = 0;  // index of the first query among the new tokens
    int query_heads = 0;
    float scale = 1.0F;              // on q.k
    const float* factors = nullptr;  // [count] on what each adds to sums; null: 1
};

/// A stretch of the kept tokens whose weights are to be noted, over a softmax of its own: over the
/// first `sinks` kept keys, the stretch, and the new tokens.
struct KeyStretch {
    int sinks = 0;
    int from_end = 0;  // it begins this many tokens before the end of what each head keeps
    int count = 0;
};

/// Tiled attention with softmax over all visible keys; K and V tiles are widened once for the R
/// query heads that share them. Scratch per thread does not grow with T unless column sums are
/// asked for. The same bits for any thread count.
class PrefillAttention {
  public:
    PrefillAttention(int threads, int head_dim, MemoryMeter* meter);

    /// Writes out [count][H][D].
    void attend(const LayerKv& kv, const PrefillQueries& queries, float* out);

    /// The same, and adds to column_sums[h][j] the softmax weight that key j of h's kv head gets
    /// from every query: H2O's score, causal. Rows of `stride` floats. `out` gets the same bits as
    /// from attend(). A block of rows keeps its raw scores until it has seen all its keys; work is
    /// split by query head and halves of the queries, so the sums do not depend on the thread
    /// count. With `largest`, each is raised to the largest of the weights instead, those of
    /// `stretch` alone where one is given.
    void attend_and_sum(const LayerKv& kv, const PrefillQueries& queries, float* out,
                        float* column_sums, std::size_t stride, bool largest = false,
                        const KeyStretch* stretch = nullptr);

  private:
    struct Scratch;
    void attend_block(const LayerKv& kv, const PrefillQueries& queries, int g, int block,
                      float* out, Scratch& s);
    void sum_head(const LayerKv& kv, const PrefillQueries& queries, int h, int begin, int stop,
                  float* out, float* sums, bool largest, const KeyStretch* stretch, Scratch& s);

    int threads_;
    int head_dim_;
    MemoryMeter* meter_;
};

}  // namespace winnow
