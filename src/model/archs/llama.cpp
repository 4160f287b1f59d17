// Llama 2 and 3, SmolLM2, Mistral: RMSNorm, rotary pairs (2i, 2i+1), SwiGLU (arXiv 2302.13971).
#include "model/blocks.h"

namespace winnow {

extern const Arch arch_llama;
const Arch arch_llama{
    .name = "llama",
    .rope_halves = false,
    .bind = [](WeightBinder& binder, const Hparams& hparams, int layer,
               LayerWeights& out) { bind_llama_layer(binder, hparams, layer, false, out); },
    .qkv = llama_qkv,
    .mix = llama_mix,
};

}  // namespace winnow
