// Tiny random models in GGUF, for tests, benches and fuzz seeds. Needs ggml.
#pragma once

#include <cstdint>
#include <string>

#include "ggml.h"

namespace winnow::testing {

enum class TinyRope {
    none,
    linear,  ///< <arch>.rope.scaling.type linear, factor rope_factor
    yarn,    ///< yarn with all its keys, original context = context / rope_factor
    llama3,  ///< a rope_freqs.weight tensor of frequency divisors
};

enum class TinyTokenizer {
    none,      ///< tokenizer.ggml.model none: token ids only
    byte_bpe,  ///< gpt2 model: 256 bytes, a few merges, ChatML specials and chat template
};

/// The model to write. libllama loads it for arch llama; for qwen2 it also needs
/// query_heads * head_dim == embed, and for both that rope_dims is 0.
struct TinyModelOptions {
    std::string architecture = "llama";  ///< or "qwen2", or one with llama's tensors and rope
    int layers = 2;                      ///< L
    int query_heads = 4;                 ///< H
    int kv_heads = 2;                    ///< G; divides H
    int head_dim = 32;                   ///< D
    int embed = 128;                     ///< E
    int ff = 256;                        ///< width of the feed-forward part
    int vocab = 320;                     ///< raised to what the tokenizer needs
    int context = 2048;
    ggml_type type = GGML_TYPE_F32;  ///< of the matrices; rows must fit its block size
    TinyRope rope = TinyRope::none;
    float rope_factor = 4.0F;
    int rope_dims = 0;  ///< 0: all of head_dim
    float freq_base = 10000.0F;
    float rms_eps = 1e-5F;
    bool tied_embeddings = false;  ///< no output.weight: the token embeddings are used
    bool qkv_bias = false;         ///< always on for qwen2
    float key_bias_scale = 0.0F;   ///< size of the few constant K channels, 0: only a small bias
    float attention_scale = 1.5F;  ///< spread of the query weights; more makes attention peaky
    int experts = 0;               ///< above 0: a mixture, two experts used; architecture llama
    int sliding_window = 0;        ///< above 0: tokens a token attends to
    TinyTokenizer tokenizer = TinyTokenizer::none;
    std::uint64_t seed = 1;
};

/// Writes the model; the same options give the same bytes. Throws std::runtime_error for options
/// that do not fit together or a path that cannot be written.
void write_tiny_gguf(const std::string& path, const TinyModelOptions& options);

/// The vocabulary size that write_tiny_gguf gives this model.
int tiny_vocab_size(const TinyModelOptions& options);

}  // namespace winnow::testing
