#include "model/blocks.h"

#include "model/products.h"

namespace winnow {

ggml_tensor* rms_norm(const BlockContext& block, ggml_tensor* x, ggml_tensor* weight) {
    return ggml_mul(block.ctx, ggml_rms_norm(block.ctx, x, block.hparams->rms_eps), weight);
}

ggml_tensor* linear(const BlockContext& block, ggml_tensor* weight, ggml_tensor* bias,
                    ggml_tensor* x) {
    ggml_tensor* product =
        block.products != nullptr ? block.products->multiply(block.ctx, weight, x) : nullptr;
    product = product != nullptr ? product : ggml_mul_mat(block.ctx, weight, x);
    return bias == nullptr ? product : ggml_add(block.ctx, product, bias);
}

ggml_tensor* rope(const BlockContext& block, ggml_tensor* x) {
    const RopeParams& r = block.hparams->rope;
    return ggml_rope_ext(block.ctx, x, block.positions, block.weights->rope_factors, r.dims,
                         r.halves ? GGML_ROPE_TYPE_NEOX : 0, r.original_context, r.freq_base,
                         r.freq_scale, r.ext_factor, r.attn_factor, r.beta_fast, r.beta_slow);
}

void bind_llama_layer(WeightBinder& binder, const Hparams& hparams, int layer, bool attention_bias,
                      LayerWeights& out) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const int embedding = hparams.embedding;
    const int query = hparams.query_heads * hparams.head_dim;
    const int key = hparams.kv_heads * hparams.head_dim;
    const auto bias = [&](const char* name, int columns) {
        return attention_bias ? binder.require(prefix + name, columns)
                              : binder.optional(prefix + name, columns);
    };
    out.attn_norm = binder.require(prefix + "attn_norm.weight", embedding);
    out.wq = binder.require(prefix + "attn_q.weight", embedding, query);
    out.wk = binder.require(prefix + "attn_k.weight", embedding, key);
    out.wv = binder.require(prefix + "attn_v.weight", embedding, key);
    out.bq = bias("attn_q.bias", query);
    out.bk = bias("attn_k.bias", key);
    out.bv = bias("attn_v.bias", key);
    out.wo = binder.require(prefix + "attn_output.weight", query, embedding);
    out.bo = binder.optional(prefix + "attn_output.bias", embedding);
    out.ffn_norm = binder.require(prefix + "ffn_norm.weight", embedding);
    out.ffn_gate = binder.require(prefix + "ffn_gate.weight", embedding, hparams.feed_forward);
    out.ffn_up = binder.require(prefix + "ffn_up.weight", embedding, hparams.feed_forward);
    out.ffn_down = binder.require(prefix + "ffn_down.weight", hparams.feed_forward, embedding);
}

Qkv llama_qkv(const BlockContext& block, int layer, ggml_tensor* x) {
    const LayerWeights& w = block.weights->layers[layer];
    const Hparams& h = *block.hparams;
    const int64_t n = x->ne[1];
    ggml_tensor* normed = rms_norm(block, x, w.attn_norm);
    const auto heads = [&](ggml_tensor* weight, ggml_tensor* bias, int count) {
        return ggml_reshape_3d(block.ctx, linear(block, weight, bias, normed), h.head_dim, count,
                               n);
    };
    return {.q = rope(block, heads(w.wq, w.bq, h.query_heads)),
            .k = rope(block, heads(w.wk, w.bk, h.kv_heads)),
            .v = heads(w.wv, w.bv, h.kv_heads)};
}

ggml_tensor* llama_mix(const BlockContext& block, int layer, ggml_tensor* x,
                       ggml_tensor* attended) {
    const LayerWeights& w = block.weights->layers[layer];
    ggml_tensor* residual = ggml_add(block.ctx, linear(block, w.wo, w.bo, attended), x);
    ggml_tensor* normed = rms_norm(block, residual, w.ffn_norm);
    ggml_tensor* gate = linear(block, w.ffn_gate, nullptr, normed);
    ggml_tensor* up = linear(block, w.ffn_up, nullptr, normed);
    ggml_tensor* gated = ggml_swiglu_split(block.ctx, gate, up);
    return ggml_add(block.ctx, linear(block, w.ffn_down, nullptr, gated), residual);
}

ggml_tensor* output_head(const BlockContext& block, ggml_tensor* x) {
    const Weights& w = *block.weights;
    return linear(block, w.output, w.output_bias, rms_norm(block, x, w.output_norm));
}

}  // namespace winnow
