#include "engine/decode_graphs.h"

#include <algorithm>

#include "model/blocks.h"
#include "model/weights.h"

namespace winnow {

DecodeGraphs::DecodeGraphs(const Arch& arch, const Hparams& hparams, const WeightStore& store,
                           int batch, int threads)
    : products_(store, threads, batch, nullptr),
      hidden_(static_cast<std::size_t>(batch) * hparams.embedding),
      positions_(batch),
      runner_(threads, nullptr) {
    const Weights& weights = store.weights();
    for (int i = 0; i <= hparams.layers; ++i) {
        Step& step = steps_.emplace_back();
        BlockContext block{.ctx = step.graph.context(),
                           .hparams = &hparams,
                           .weights = &weights,
                           .products = &products_};
        ggml_tensor* x = nullptr;
        if (i == 0) {
            step.tokens = step.graph.input_i32(batch);
            x = ggml_get_rows(block.ctx, weights.token_embd, step.tokens);
        } else {
            step.x = step.graph.input_f32(hparams.embedding, batch);
            step.attended = step.graph.input_f32(hparams.query_heads * hparams.head_dim, batch);
            x = arch.mix(block, i - 1, step.x, step.attended);
        }
        if (i == hparams.layers) {
            step.logits = output_head(block, x);
            step.graph.output(step.logits);
            continue;
        }
        step.hidden = x;
        step.graph.output(x);
        step.positions = block.positions = step.graph.input_i32(batch);
        step.qkv = arch.qkv(block, i, x);
        for (ggml_tensor* result : {step.qkv.q, step.qkv.k, step.qkv.v}) {
            step.graph.output(result);
        }
    }
    std::vector<Graph*> graphs;
    for (Step& step : steps_) {
        graphs.push_back(&step.graph);
    }
    runner_.place(graphs);
}

void DecodeGraphs::read_qkv(const Step& step, float* q, float* k, float* v) const {
    read_tensor(step.qkv.q, q);
    read_tensor(step.qkv.k, k);
    read_tensor(step.qkv.v, v);
}

void DecodeGraphs::begin(const std::int32_t* tokens, const std::int32_t* positions, float* q,
                         float* k, float* v) {
    Step& step = steps_.front();
    std::copy_n(positions, positions_.size(), positions_.begin());
    write_tensor(step.tokens, tokens);
    write_tensor(step.positions, positions);
    runner_.run(step.graph);
    read_tensor(step.hidden, hidden_.data());
    read_qkv(step, q, k, v);
}

void DecodeGraphs::next(int layer, const float* attended, float* q, float* k, float* v) {
    Step& step = steps_[layer + 1];
    write_tensor(step.x, hidden_.data());
    write_tensor(step.attended, attended);
    write_tensor(step.positions, positions_.data());
    runner_.run(step.graph);
    read_tensor(step.hidden, hidden_.data());
    read_qkv(step, q, k, v);
}

void DecodeGraphs::finish(const float* attended, float* logits) {
    Step& step = steps_.back();
    write_tensor(step.x, hidden_.data());
    write_tensor(step.attended, attended);
    runner_.run(step.graph);
    read_tensor(step.logits, logits);
}

}  // namespace winnow
