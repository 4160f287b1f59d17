// One pass of tokens through all layers.
#pragma once

#include <span>
#include <vector>

#include "attend/prefill_attention.h"
#include "engine/session_impl.h"
#include "model/products.h"

namespace winnow {

/// One pass of tokens through all layers; the working memory of a prefill lives as long as it.
class Pass {
  public:
    Pass(std::span<Session::Impl* const> sessions, std::span<const std::int32_t> tokens, bool keep,
         const ProgressCallback* progress)
        : sessions_(sessions),
          session_(*sessions[0]),
          h_(session_.hparams()),
          tokens_(tokens),
          count_(static_cast<int>(tokens.size())),
          chunk_(std::min(count_, session_.options.batch)),
          keep_(keep),
          progress_(progress),
          hidden_(&session_.work, static_cast<std::size_t>(count_) * h_.embedding,
                  "the prompt's hidden states"),
          q_(&session_.work, chunk_row(h_.query_heads), "a chunk's queries"),
          k_(&session_.work, chunk_row(h_.kv_heads), "a chunk's keys"),
          v_(&session_.work, chunk_row(h_.kv_heads), "a chunk's values"),
          attended_(&session_.work, chunk_row(h_.query_heads), "a chunk's attention"),
          products_(make_products()),
          runner_(session_.m().threads, &session_.work),
          attention_(session_.m().threads, h_.head_dim, &session_.work),
          compress_ms_(sessions.size(), 0.0) {}

    void embed();
    void run_layer(int layer);
    /// The same without packing: the layer's K and V, whole.
    LayerKv read_layer(int layer);
    /// The layer's tokens go behind what `session` keeps, and none of it is scored by them. Sums
    /// that a policy keeps are told of the new tokens alone.
    void append_layer(int layer);
    /// Positions of the tokens begin here instead of at the first session's.
    void start_at(int position) { position_ = position; }
    /// Reads the tokens through `before` and leaves it as it is. Raises peaks [G * sum_rows()] of
    /// [stride], as the session's stores keep them, to the largest weight that each token of
    /// `stretch` gets from them.
    void repeat_layer(int layer, const LayerKv& before, const KeyStretch& stretch, float* peaks,
                      std::size_t stride);
    void logits_of(int first, int count, float* logits);
    double compress_ms(std::size_t session) const { return compress_ms_[session]; }

  private:
    struct ChunkGraphs;
    std::size_t chunk_row(int heads) const {
        return static_cast<std::size_t>(chunk_) * heads * h_.head_dim;
    }
    std::unique_ptr<Products> make_products();
    LayerKv open_layer(const LayerStore& store);
    void run_chunks(int layer, LayerKv& kv);
    void run_chunk(int layer, int first, ChunkGraphs& graphs, LayerKv& kv, bool attend, bool mix);
    void start_sums(int layer, const LayerKv& kv);
    void remember_queries(int layer, int first, int rows);
    void compress(int layer, const LayerKv& kv);
    void report(int layer, int done) const;

    std::span<Session::Impl* const> sessions_;
    Session::Impl& session_;  // the first
    const Hparams& h_;
    std::span<const std::int32_t> tokens_;
    int count_;
    int chunk_;
    bool keep_;
    int position_ = session_.position;
    bool peaks_ = false;                   // sums_ takes the largest attention
    const KeyStretch* stretch_ = nullptr;  // of these tokens alone
    std::vector<float> factors_;           // of a chunk's queries, where sums are per input
    bool per_input_ = false;
    bool append_ = false;  // nobody looks at the outputs but the last
    const ProgressCallback* progress_;
    Buffer<float> hidden_;  // [T][E]
    Buffer<float> q_, k_, v_, attended_;
    Buffer<float> sums_;  // [H][stride] attention received, where the policy asks
    std::size_t sums_stride_ = 0;
    std::unique_ptr<Products> products_;
    GraphRunner runner_;
    PrefillAttention attention_;
    std::vector<double> compress_ms_;  // per session
};

}  // namespace winnow
