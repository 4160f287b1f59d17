#include "engine/pass.h"

#include <algorithm>
#include <cmath>

#include "attend/peaks.h"
#include "engine/compress.h"
#include "engine/question.h"
#include "model/blocks.h"
#include "model/step_products.h"
#include "model/weights.h"

namespace winnow {

namespace {

// Peaks come from a second pass over the prompt, not from its own queries.
bool takes_sums(const LayerStore& store) {
    return store.has_sums() && !store.memory().largest;
}

}  // namespace

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

// A rule on the prompt, not on the chunk, so that results do not depend on the chunk size.
std::unique_ptr<Products> Pass::make_products() {
    const Model::Impl& m = session_.m();
    if (count_ >= kProductTokens) {
        return std::make_unique<PromptProducts>(*m.weights, m.threads, &session_.work);
    }
    return std::make_unique<StepProducts>(*m.weights, m.threads, count_, &session_.work);
}

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
    const LayerKv kv = read_layer(layer);
    if (keep_) {
        compress(layer, kv);
    }
    sums_.resize(0);
}

LayerKv Pass::read_layer(int layer) {
    LayerKv kv = open_layer(*session_.layers[layer].store);
    start_sums(layer, kv);
    run_chunks(layer, kv);
    return kv;
}

void Pass::repeat_layer(int layer, const LayerKv& before, const KeyStretch& stretch, float* peaks,
                        std::size_t stride) {
    std::vector<int> kept;
    for (const LayerKv::Head& head : before.heads()) {
        kept.push_back(head.tokens);
    }
    LayerKv kv(&session_.work, kept, count_, h_.head_dim);
    sums_stride_ = 0;
    for (int g = 0; g < h_.kv_heads; ++g) {
        const LayerKv::Head& from = before.head(g);
        const LayerKv::Head& to = kv.head(g);
        std::copy_n(from.k, static_cast<std::size_t>(kept[g]) * h_.head_dim, to.k);
        std::copy_n(from.v, static_cast<std::size_t>(kept[g]) * h_.head_dim, to.v);
        std::copy_n(from.positions, kept[g], to.positions);
        sums_stride_ = std::max(sums_stride_, static_cast<std::size_t>(to.tokens));
    }
    sums_ = Buffer<float>(&session_.work, sums_stride_ * h_.query_heads, "peaks of attention");
    peaks_ = true;
    stretch_ = &stretch;
    const LayerStore& store = *session_.layers[layer].store;
    per_input_ = store.memory().per_input();
    run_chunks(layer, kv);
    const int per_row = h_.query_heads / h_.kv_heads / store.sum_rows();
    for (int head = 0; head < h_.query_heads; ++head) {
        raise_to(peaks + head / per_row * stride, sums_.data() + head * sums_stride_,
                 before.head(head / per_row / store.sum_rows()).tokens, 1.0F);
    }
    sums_.resize(0);
}

void Pass::append_layer(int layer) {
    const LayerStore& store = *session_.layers[layer].store;
    LayerKv kv = open_layer(store);
    if (store.adds_weights()) {
        sums_stride_ = static_cast<std::size_t>(store.longest() + count_);
        sums_ = Buffer<float>(&session_.work, sums_stride_ * h_.query_heads, "attention sums");
    }
    append_ = true;
    peaks_ = store.memory().largest;
    per_input_ = store.memory().per_input();
    run_chunks(layer, kv);
    append_question(session_, layer, kv, sums_.data(), sums_stride_);
    sums_.resize(0);
}

void Pass::run_chunks(int layer, LayerKv& kv) {
    // Past its K and V the last layer matters for the last token only, unless someone looks.
    const bool last = layer == h_.layers - 1 && (keep_ || peaks_ || append_);
    const int tail = count_ % chunk_ == 0 ? chunk_ : count_ % chunk_;
    std::vector<ChunkGraphs> sizes;
    sizes.reserve(2);
    for (int first = 0; first < count_; first += chunk_) {
        const int rows = std::min(chunk_, count_ - first);
        if (sizes.empty() || sizes.back().rows != rows) {
            sizes.clear();
            sizes.emplace_back(session_.m(), products_.get(), layer, rows);
            runner_.place({&sizes.back().before, &sizes.back().after});
        }
        const bool needed = !last || first + tail == count_;
        run_chunk(layer, first, sizes.back(), kv, needed || !sums_.empty(), needed);
        report(layer, first + rows);
    }
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

// One set of sums serves every session that asks: they all see the same attention.
void Pass::start_sums(int layer, const LayerKv& kv) {
    LayerStore* asking = nullptr;
    for (const Session::Impl* session : sessions_) {
        LayerStore* store = session->layers[layer].store.get();
        asking = asking == nullptr && takes_sums(*store) ? store : asking;
    }
    if (!keep_ || asking == nullptr) {
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
        const float* from = asking->sums(g) + (head % group) * asking->sums_stride(g);
        std::copy_n(from, kv.head(g).kept, sums_.data() + head * sums_stride_);
    }
}

// The last W queries go to each session's ring, W being its own.
void Pass::remember_queries(int layer, int first, int rows) {
    const std::size_t row = static_cast<std::size_t>(h_.query_heads) * h_.head_dim;
    for (const Session::Impl* session : sessions_) {
        LayerStore& store = *session->layers[layer].store;
        const int from = std::max(0, count_ - session->plan.memory.window - first);
        for (int i = from; keep_ && i < rows; ++i) {
            store.push_query(q_.data() + i * row);
        }
        if (keep_) {
            store.add_queries(q_.data(), rows, session->position + first, session->m().threads);
            store.note_queries(q_.data(), rows);
        }
    }
}

void Pass::run_chunk(int layer, int first, ChunkGraphs& graphs, LayerKv& kv, bool attend,
                     bool mix) {
    const int rows = graphs.rows;
    float* x = hidden_.data() + static_cast<std::size_t>(first) * h_.embedding;
    std::vector<std::int32_t> positions(rows);
    for (int i = 0; i < rows; ++i) {
        positions[i] = position_ + first + i;
    }
    write_tensor(graphs.x, x);
    write_tensor(graphs.positions, positions.data());
    runner_.run(graphs.before);
    read_tensor(graphs.qkv.q, q_.data());
    read_tensor(graphs.qkv.k, k_.data());
    read_tensor(graphs.qkv.v, v_.data());
    kv.put(first, rows, k_.data(), v_.data(), positions[0]);

    remember_queries(layer, first, rows);
    factors_.clear();
    for (int i = 0; per_input_ && i < rows; ++i) {
        factors_.push_back(
            inverse_length(x + static_cast<std::size_t>(i) * h_.embedding, h_.embedding));
    }
    const PrefillQueries queries{.q = q_.data(),
                                 .count = rows,
                                 .first = first,
                                 .query_heads = h_.query_heads,
                                 .scale = 1.0F / std::sqrt(static_cast<float>(h_.head_dim)),
                                 .factors = per_input_ ? factors_.data() : nullptr};
    if (attend && !sums_.empty()) {
        attention_.attend_and_sum(kv, queries, attended_.data(), sums_.data(), sums_stride_, peaks_,
                                  stretch_);
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
    int longest = 0;
    for (const LayerKv::Head& head : kv.heads()) {
        longest = std::max(longest, head.tokens);
    }
    std::vector<LayerView> views;
    std::vector<int> tokens;
    for (const Session::Impl* session : sessions_) {
        const LayerStore& store = *session->layers[layer].store;
        LayerView& view = views.emplace_back(LayerView{.kv = &kv, .window = store.queries()});
        view.window_queries.resize(static_cast<std::size_t>(view.window) * h_.query_heads *
                                   h_.head_dim);
        store.read_queries(view.window_queries.data());
        if (takes_sums(store)) {
            view.column_sums = sums_.data();
            view.stride = sums_stride_;
        }
        tokens.push_back(std::max(longest, session->budget_tokens));
    }
    compress_layer(sessions_, layer, views, tokens, compress_ms_);
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
    // Logits are compared: activations rounded to 8 bits would put a floor under the difference.
    ggml_tensor* out =
        output_head(session_.m().block(graph.context(), nullptr, products_.get()), x);
    graph.output(out);
    runner_.place({&graph});
    write_tensor(x, hidden_.data() + static_cast<std::size_t>(first) * h_.embedding);
    runner_.run(graph);
    read_tensor(out, logits);
}

}  // namespace winnow
