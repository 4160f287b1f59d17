// Graph blocks that architectures share.
#pragma once

#include "model/arch.h"

namespace winnow {

/// x / rms(x) * weight over each row of [n][E].
ggml_tensor* rms_norm(const BlockContext& block, ggml_tensor* x, ggml_tensor* weight);
/// x W^T (+ bias) for x [n][in]; gives [n][out].
ggml_tensor* linear(const BlockContext& block, ggml_tensor* weight, ggml_tensor* bias,
                    ggml_tensor* x);
/// Rotates [n][heads][D] by the block's positions.
ggml_tensor* rope(const BlockContext& block, ggml_tensor* x);

/// Binds the tensors of a llama-like layer: separate Q, K, V and a gated feed-forward.
/// `attention_bias`: the biases of Q, K and V are required.
void bind_llama_layer(WeightBinder& binder, const Hparams& hparams, int layer, bool attention_bias,
                      LayerWeights& out);
/// rms_norm, projections, rope.
Qkv llama_qkv(const BlockContext& block, int layer, ggml_tensor* x);
/// Output projection, residual, SwiGLU feed-forward, residual.
ggml_tensor* llama_mix(const BlockContext& block, int layer, ggml_tensor* x, ggml_tensor* attended);
/// Final norm and vocabulary projection: [n][E] -> [n][V].
ggml_tensor* output_head(const BlockContext& block, ggml_tensor* x);

}  // namespace winnow
