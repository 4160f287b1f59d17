// One layer's cache: a span per kv head and tier, the fitted data of its formats, and what the
// policy remembers for its next decision.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/layer_kv.h"
#include "cache/query_moments.h"
#include "cache/span.h"

namespace winnow {

/// What a policy needs to keep from step to step while decoding.
struct LayerMemory {
    int window = 0;               ///< W queries in the ring; 0: none
    bool column_sums = false;     ///< running sums of attention received
    bool one_row = false;         ///< one sum per kv head and token, not one per query head
    bool largest = false;         ///< the largest attention received instead of the sum
    bool moments = false;         ///< mean and covariance of the queries before RoPE
    int moments_skip = 0;         ///< first positions whose queries are left out of these
    bool decode_squares = false;  ///< sums are of squared attention, kept while decoding alone
    bool exact_room = false;      ///< sums take no room beyond a few tokens, and never lie twice
    bool release_ring = false;    ///< the ring lives during prefill only
    int notes = 0;                ///< floats the method keeps beside

    /// The largest weight per query head, each divided by the length of the layer's input.
    bool per_input() const { return largest && !one_row; }
};

/// What a store is made of, as a file says it and as a plan does.
struct StoreShape {
    std::vector<SpanLayout> tiers;
    int kv_heads = 0;
    int query_heads = 0;
    LayerMemory memory;

    /// Throws a failure Error for what no plan makes.
    void transfer(Archive& archive);
    /// What differs, in words, or "".
    std::string difference(const StoreShape& other) const;
};

/// A kv head's tokens may lie at several precisions: a span per tier, each with its own layout. New
/// tokens enter tier 0; what the others hold was moved there. Tokens of different tiers interleave
/// in position, so where an order matters it is said which: by position, or by storage, which is
/// tier 1, 2, .. and tier 0 with its tail last.
class LayerStore {
  public:
    LayerStore(std::span<const SpanLayout> tiers, int kv_heads, int query_heads,
               const LayerMemory& memory, MemoryMeter* cache, MemoryMeter* policy);
    LayerStore(const SpanLayout& layout, int kv_heads, int query_heads, const LayerMemory& memory,
               MemoryMeter* cache, MemoryMeter* policy)
        : LayerStore(std::span(&layout, 1), kv_heads, query_heads, memory, cache, policy) {}
    LayerStore(const LayerStore&) = delete;
    LayerStore& operator=(const LayerStore&) = delete;

    int tiers() const { return static_cast<int>(layouts_.size()); }
    const SpanLayout& layout(int tier = 0) const { return layouts_[tier]; }
    int kv_heads() const { return kv_heads_; }
    int query_heads() const { return query_heads_; }
    const Span& span(int g, int tier = 0) const { return spans_[g * tiers() + tier]; }
    /// The fitted data that head g's tiles of `tier` are read with, or null.
    const float* side_data(int g, int tier = 0) const;
    int tokens(int g) const;  ///< over all tiers
    int longest() const;      ///< the most tokens of a head
    /// Storage index of the first token of a tier.
    int first_of(int g, int tier) const;
    /// Storage indices of head g's tokens by ascending position.
    std::vector<std::int32_t> by_position(int g) const;
    /// Takes the first tier's fitted data from elsewhere instead of fitting it; does nothing for an
    /// empty one.
    void use_side_data(std::span<const float> data);

    /// Adds one token's rows [G][D] f32 to every span. abs(x) > 65504 is clamped.
    void append(const float* k, const float* v, std::int32_t position);
    /// Adds the new tokens of `kv`; the older ones are those the spans hold already.
    void append(const LayerKv& kv);
    /// Keeps only kept[g] of the rows in `kv` (indices into head g's rows), packed anew.
    void rebuild(const LayerKv& kv, const std::vector<std::vector<std::int32_t>>& kept);
    /// The same with kept[g][tier]: each ascending, no token twice.
    void rebuild(const LayerKv& kv,
                 const std::vector<std::vector<std::vector<std::int32_t>>>& kept);
    /// Fits the formats' side data on all of `kv`, so that pack() can be tried before rebuild().
    /// Does nothing where they are fitted already.
    void fit_once(const LayerKv& kv);
    /// Moves the tokens at `indices` (ascending, of one tier's span) to another tier, or drops them
    /// for to = -1. Both must be of formats with token_rows.
    void move(int g, int from, int to, std::span<const std::int32_t> indices);
    /// All rows of head g by position, K post-RoPE: k, v [S][D], positions [S].
    void read(int g, f16* k, f16* v, std::int32_t* positions) const;

    /// Adds queries [rows][H][D], post-RoPE, to what formats with query_energy are fitted on.
    void note_queries(const float* q, int rows);
    /// Ring of the last W queries [W][H][D] as f16, post-RoPE.
    void push_query(const float* q);
    int queries() const { return queries_; }
    /// The remembered queries in time order, widened to f32 [queries()][H][D].
    void read_queries(float* out) const;

    /// Adds queries [count][H][D], post-RoPE, of positions `position`.. to the moments, where the
    /// policy keeps them. The same bits for any chunks and threads.
    void add_queries(const float* q, int count, int position, int threads);
    const QueryMoments& moments() const { return moments_; }

    const LayerMemory& memory() const { return memory_; }
    /// Empties the ring: queries to come are not of the tokens right behind those in it.
    void forget_queries() { queries_ = next_query_ = 0; }
    /// Frees the ring where memory says so; the next push_query() makes it anew.
    void release_queries();
    bool rings_while_decoding() const { return memory_.window > 0 && !memory_.release_ring; }

    /// Sums that a policy reads in prefill and while decoding.
    bool has_sums() const { return memory_.column_sums && !memory_.decode_squares; }
    /// Whether attention adds its weights to sums() while decoding.
    bool adds_weights() const { return memory_.column_sums; }
    /// Rows of the running sums: one per query head of the group, or one for all of them.
    int sum_rows() const { return memory_.one_row ? 1 : query_heads_ / kv_heads_; }
    /// Running sums of head g, [R][room] with room sums_stride(g); grown to hold all tokens, which
    /// lie by storage.
    float* sums(int g);
    std::size_t sums_stride(int g) const { return sums_stride_[g]; }
    /// Room for the sums of `stride` tokens of head g; what fits stays.
    void resize_sums(int g, std::size_t stride);
    void replace_sums(int g, const float* from, std::size_t stride,
                      const std::vector<std::int32_t>& kept);

    std::size_t notes_bytes() const { return notes_.bytes(); }
    std::span<float> notes() { return {notes_.data(), notes_.size()}; }

    std::size_t bytes() const;
    std::size_t side_bytes() const;  ///< of the fitted data
    std::size_t policy_bytes() const;
    std::unique_ptr<LayerStore> clone(MemoryMeter* cache, MemoryMeter* policy) const;

    StoreShape shape() const { return {layouts_, kv_heads_, query_heads_, memory_}; }
    /// All that the store holds, to or from a file; when reading, of a fresh store of the shape
    /// that was written. Positions lie below `end`.
    void transfer(Archive& archive, std::int32_t end);

  private:
    Span& at(int g, int tier) { return spans_[g * tiers() + tier]; }
    struct Sample;
    void sample(const LayerKv& kv, int g, const std::vector<std::int32_t>* kept, int tier,
                Sample& out) const;
    void fit_once(const LayerKv& kv, const std::vector<std::vector<std::int32_t>>* kept);
    void fit_tier(int tier, const LayerKv& kv, const std::vector<std::vector<std::int32_t>>* kept);
    void fit_on_tails();
    std::size_t side_floats(int tier) const;
    std::size_t ring_floats() const;
    std::size_t sums_room() const;
    void move_sums(int g, int from, int to, std::span<const std::int32_t> indices);
    void check(const Archive& archive) const;

    std::vector<SpanLayout> layouts_;  // [tiers]; spans point into it
    int kv_heads_;
    LayerMemory memory_;
    int query_heads_;
    MemoryMeter* cache_;
    MemoryMeter* policy_;
    std::vector<Span> spans_;   // [G][tiers]
    std::vector<int> side_of_;  // [tiers] whose side data it shares: the same format's first
    std::vector<Buffer<float>>
        side_;  // [tiers]; [floats], or [G][floats] where heads have their own
    bool fitted_ = false;
    Buffer<f16> ring_;  // [W][H][D]
    QueryMoments moments_;
    int queries_ = 0;
    int next_query_ = 0;
    std::vector<Buffer<float>> sums_;  // per kv head [R][stride]
    std::vector<std::size_t> sums_stride_;
    Buffer<float> notes_;
};

}  // namespace winnow
