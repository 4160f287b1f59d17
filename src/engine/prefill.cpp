// The way of a prompt: embed, then for each layer { for each chunk: qkv -> attend -> mix }, then
// once per layer: observe -> score -> select -> pack -> free that layer's full K and V.
#include "engine/prefill.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "attend/prefill_attention.h"
#include "engine/compress.h"
#include "model/blocks.h"
#include "model/products.h"
#include "model/weights.h"

namespace winnow {

namespace {

constexpr int kHeadRows = 16;  // rows of logits computed at once

double ms_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

/// One pass of tokens through all layers; the working memory of a prefill lives as long as it.
class Pass {
  public:
    Pass(Session::Impl& session, std::span<const std::int32_t> tokens, bool keep,
         const ProgressCallback* progress)
        : session_(session),
          h_(session.hparams()),
          tokens_(tokens),
          count_(static_cast<int>(tokens.size())),
          chunk_(std::min(count_, session.options.batch)),
          keep_(keep),
          progress_(progress),
          hidden_(&session.work, static_cast<std::size_t>(count_) * h_.embedding,
                  "the prompt's hidden states"),
          q_(&session.work, chunk_row(h_.query_heads), "a chunk's queries"),
          k_(&session.work, chunk_row(h_.kv_heads), "a chunk's keys"),
          v_(&session.work, chunk_row(h_.kv_heads), "a chunk's values"),
          attended_(&session.work, chunk_row(h_.query_heads), "a chunk's attention"),
          products_(*session.m().weights, count_ >= kProductTokens ? session.m().threads : 0,
                    &session.work),
          runner_(session.m().threads, &session.work),
          attention_(session.m().threads, h_.head_dim, &session.work) {}

    void embed();
    void run_layer(int layer);
    void logits_of(int first, int count, float* logits);
    double compress_ms() const { return compress_ms_; }

  private:
    struct ChunkGraphs;
    std::size_t chunk_row(int heads) const {
        return static_cast<std::size_t>(chunk_) * heads * h_.head_dim;
    }
    LayerKv open_layer(const LayerStore& store);
    void run_chunk(int layer, int first, ChunkGraphs& graphs, LayerKv& kv, bool attend, bool mix);
    void start_sums(LayerStore& store, const LayerKv& kv);
    void compress(int layer, const LayerKv& kv);
    void report(int layer, int done) const;

    Session::Impl& session_;
    const Hparams& h_;
    std::span<const std::int32_t> tokens_;
    int count_;
    int chunk_;
    bool keep_;
    const ProgressCallback* progress_;
    Buffer<float> hidden_;  // [T][E]
    Buffer<float> q_, k_, v_, attended_;
    Buffer<float> sums_;  // [H][stride] attention received, where the policy asks
    std::size_t sums_stride_ = 0;
    Products products_;
    GraphRunner runner_;
    PrefillAttention attention_;
    double compress_ms_ = 0.0;
};

// The two graph pieces of one layer for one chunk size.
struct Pass::ChunkGraphs {
    int rows;
    Graph before, after;
    ggml_tensor *x, *positions, *residual, *attended, *mixed;
    Qkv qkv;

    ChunkGraphs(const Model::Impl& m, Products* products, int layer, int rows_) : rows(rows_) {
        const Hparams& h = m.hparams;
        x = before.input_f32(h.embedding, rows);
        positions = before.input_i32(rows);
        qkv = m.arch->qkv(m.block(before.context(), positions, products), layer, x);
        for (ggml_tensor* result : {qkv.q, qkv.k, qkv.v}) {
            before.output(result);
        }
        residual = after.input_f32(h.embedding, rows);
        attended = after.input_f32(h.query_heads * h.head_dim, rows);
        mixed = m.arch->mix(m.block(after.context(), nullptr, products), layer, residual, attended);
        after.output(mixed);
    }
};

void Pass::embed() {
    for (int first = 0; first < count_; first += chunk_) {
        const int rows = std::min(chunk_, count_ - first);
        Graph graph;
        ggml_tensor* ids = graph.input_i32(rows);
        ggml_tensor* x =
            ggml_get_rows(graph.context(), session_.m().weights->weights().token_embd, ids);
        graph.output(x);
        runner_.place({&graph});
        write_tensor(ids, tokens_.data() + first);
        runner_.run(graph);
        read_tensor(x, hidden_.data() + static_cast<std::size_t>(first) * h_.embedding);
    }
}

void Pass::run_layer(int layer) {
    LayerStore& store = *session_.layers[layer].store;
    LayerKv kv = open_layer(store);
    start_sums(store, kv);
    // Past its K and V the last layer matters for the last token only, unless someone looks.
    const bool last = layer == h_.layers - 1 && keep_;
    const int tail = count_ % chunk_ == 0 ? chunk_ : count_ % chunk_;
    std::vector<ChunkGraphs> sizes;
    sizes.reserve(2);
    for (int first = 0; first < count_; first += chunk_) {
        const int rows = std::min(chunk_, count_ - first);
        if (sizes.empty() || sizes.back().rows != rows) {
            sizes.clear();
            sizes.emplace_back(session_.m(), count_ >= kProductTokens ? &products_ : nullptr, layer,
                               rows);
            runner_.place({&sizes.back().before, &sizes.back().after});
        }
        const bool needed = !last || first + tail == count_;
        run_chunk(layer, first, sizes.back(), kv, needed || !sums_.empty(), needed);
        report(layer, first + rows);
    }
    if (keep_) {
        compress(layer, kv);
    }
    sums_.resize(0);
}

// The layer's K and V: what is kept already, and room for the new tokens.
LayerKv Pass::open_layer(const LayerStore& store) {
    std::vector<int> kept;
    for (int g = 0; g < h_.kv_heads; ++g) {
        kept.push_back(store.tokens(g));
    }
    LayerKv kv(&session_.work, kept, count_, h_.head_dim);
    for (int g = 0; g < h_.kv_heads; ++g) {
        const LayerKv::Head& head = kv.head(g);
        store.read(g, head.k, head.v, head.positions);
    }
    return kv;
}

void Pass::start_sums(LayerStore& store, const LayerKv& kv) {
    if (!keep_ || !store.has_sums()) {
        return;
    }
    for (const LayerKv::Head& head : kv.heads()) {
        sums_stride_ = std::max(sums_stride_, static_cast<std::size_t>(head.tokens));
    }
    sums_ = Buffer<float>(&session_.work, sums_stride_ * h_.query_heads, "attention sums");
    // Older tokens bring the attention they have received so far.
    const int group = h_.query_heads / h_.kv_heads;
    for (int head = 0; head < h_.query_heads; ++head) {
        const int g = head / group;
        const float* from = store.sums(g) + (head % group) * store.sums_stride(g);
        std::copy_n(from, kv.head(g).kept, sums_.data() + head * sums_stride_);
    }
}

void Pass::run_chunk(int layer, int first, ChunkGraphs& graphs, LayerKv& kv, bool attend,
                     bool mix) {
    const int rows = graphs.rows;
    float* x = hidden_.data() + static_cast<std::size_t>(first) * h_.embedding;
    std::vector<std::int32_t> positions(rows);
    for (int i = 0; i < rows; ++i) {
        positions[i] = session_.position + first + i;
    }
    write_tensor(graphs.x, x);
    write_tensor(graphs.positions, positions.data());
    runner_.run(graphs.before);
    read_tensor(graphs.qkv.q, q_.data());
    read_tensor(graphs.qkv.k, k_.data());
    read_tensor(graphs.qkv.v, v_.data());
    kv.put(first, rows, k_.data(), v_.data(), positions[0]);

    LayerStore& store = *session_.layers[layer].store;
    const std::size_t row = static_cast<std::size_t>(h_.query_heads) * h_.head_dim;
    for (int i = 0; keep_ && i < rows; ++i) {
        if (first + i >= count_ - session_.plan.memory.window) {
            store.push_query(q_.data() + i * row);
        }
    }
    const PrefillQueries queries{.q = q_.data(),
                                 .count = rows,
                                 .first = first,
                                 .query_heads = h_.query_heads,
                                 .scale = 1.0F / std::sqrt(static_cast<float>(h_.head_dim))};
    if (attend && !sums_.empty()) {
        attention_.attend_and_sum(kv, queries, attended_.data(), sums_.data(), sums_stride_);
    } else if (attend) {
        attention_.attend(kv, queries, attended_.data());
    }
    if (mix) {
        write_tensor(graphs.residual, x);
        write_tensor(graphs.attended, attended_.data());
        runner_.run(graphs.after);
        read_tensor(graphs.mixed, x);
    }
}

void Pass::compress(int layer, const LayerKv& kv) {
    const auto start = std::chrono::steady_clock::now();
    LayerStore& store = *session_.layers[layer].store;
    LayerView view{.kv = &kv, .window = store.queries()};
    view.window_queries.resize(static_cast<std::size_t>(view.window) * h_.query_heads *
                               h_.head_dim);
    store.read_queries(view.window_queries.data());
    if (!sums_.empty()) {
        view.column_sums = sums_.data();
        view.stride = sums_stride_;
    }
    int longest = 0;
    for (const LayerKv::Head& head : kv.heads()) {
        longest = std::max(longest, head.tokens);
    }
    compress_layer(session_, layer, view, std::max(longest, session_.budget_tokens));
    compress_ms_ += ms_since(start);
}

void Pass::report(int layer, int done) const {
    if (progress_ != nullptr && *progress_ &&
        !(*progress_)(
            {.layer = layer, .layers = h_.layers, .tokens = done, .tokens_total = count_})) {
        throw Error(ErrorKind::stopped, "stopped while reading the prompt.");
    }
}

// Logits [count][V] of hidden rows first.. after the last layer.
void Pass::logits_of(int first, int count, float* logits) {
    Graph graph;
    ggml_tensor* x = graph.input_f32(h_.embedding, count);
    ggml_tensor* out = output_head(session_.m().block(graph.context(), nullptr), x);
    graph.output(out);
    runner_.place({&graph});
    write_tensor(x, hidden_.data() + static_cast<std::size_t>(first) * h_.embedding);
    runner_.run(graph);
    read_tensor(out, logits);
}

// Says before the work starts that it would not fit.
void check_memory(const Session::Impl& session, std::size_t tokens) {
    const Hparams& h = session.hparams();
    const std::uint64_t layer = 4ULL * tokens * h.kv_heads * h.head_dim;
    const double share = session.plan.options.method == "full" ? 1.0 : 0.0;
    const double bits = (session.plan.options.nbits_k + session.plan.options.nbits_v) / 32.0;
    const auto cache =
        static_cast<std::uint64_t>(share * bits * static_cast<double>(layer) * h.layers);
    const std::uint64_t needed = cache + layer + 4ULL * tokens * h.embedding;
    if (needed > available_memory()) {
        throw failure("reading " + std::to_string(tokens) + " tokens needs about " +
                      std::to_string(needed >> 20) + " MiB, but only " +
                      std::to_string(available_memory() >> 20) +
                      " MiB of memory are free; use --max-capacity-prompts, fewer bits or a "
                      "shorter prompt.");
    }
}

}  // namespace

void prefill(Session::Impl& session, std::span<const std::int32_t> tokens,
             const ProgressCallback& progress) {
    session.check_tokens(tokens);
    check_memory(session, tokens.size());
    const std::lock_guard lock(session.m().compute);
    const auto start = std::chrono::steady_clock::now();
    session.memory.reset_peak();
    const int older_budget = session.budget_tokens;
    std::vector<SessionLayer> older(session.layers.size());
    try {
        Pass pass(session, tokens, true, &progress);
        int kept = 0;
        for (const SessionLayer& layer : session.layers) {
            kept = std::max(kept, layer.store->longest());
        }
        session.budget_tokens =
            std::max(session.budget_tokens, kept + static_cast<int>(tokens.size()));
        pass.embed();
        for (int layer = 0; layer < session.hparams().layers; ++layer) {
            // A later prompt works on a copy, so that stopping leaves the session as it was.
            SessionLayer& state = session.layers[layer];
            older[layer].budget = state.budget;
            older[layer].scores = state.scores;
            older[layer].store = std::move(state.store);
            state.store = older[layer].store->clone(&session.cache, &session.policy);
            pass.run_layer(layer);
            if (session.position == 0) {
                older[layer].store.reset();
            }
        }
        session.logits.resize(session.hparams().vocabulary);
        pass.logits_of(static_cast<int>(tokens.size()) - 1, 1, session.logits.data());
        session.timing.compress_ms = pass.compress_ms();
    } catch (...) {
        for (std::size_t layer = 0; layer < older.size(); ++layer) {
            if (older[layer].store != nullptr) {
                session.layers[layer] = std::move(older[layer]);
            } else if (session.position == 0) {
                session.layers[layer].store = session.new_store(static_cast<int>(layer));
                session.layers[layer].budget.clear();
            }
        }
        session.budget_tokens = older_budget;
        throw;
    }
    older.clear();
    session.position += static_cast<int>(tokens.size());
    session.prefill_peak = session.memory.peak();
    session.note_bytes();
    session.note_logits();
    session.timing.prefill_ms = ms_since(start);
}

void score(Session::Impl& session, std::span<const std::int32_t> tokens, const LogitsSink& sink) {
    session.check_tokens(tokens);
    const std::lock_guard lock(session.m().compute);
    Pass pass(session, tokens, false, nullptr);
    pass.embed();
    for (int layer = 0; layer < session.hparams().layers; ++layer) {
        pass.run_layer(layer);
    }
    const std::size_t vocabulary = static_cast<std::size_t>(session.hparams().vocabulary);
    std::vector<float> logits(kHeadRows * vocabulary);
    const int count = static_cast<int>(tokens.size());
    for (int first = 0; first < count; first += kHeadRows) {
        const int rows = std::min(kHeadRows, count - first);
        pass.logits_of(first, rows, logits.data());
        for (int i = 0; i < rows; ++i) {
            sink(first + i, std::span(logits).subspan(i * vocabulary, vocabulary));
        }
    }
}

}  // namespace winnow
