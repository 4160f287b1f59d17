// Qwen2 and Qwen2.5: as llama, but with biases on Q, K and V and rotary halves (arXiv 2407.10671).
#include "model/blocks.h"

namespace winnow {

extern const Arch arch_qwen2;
const Arch arch_qwen2{
    .name = "qwen2",
    .rope_halves = true,
    .bind = [](WeightBinder& binder, const Hparams& hparams, int layer,
               LayerWeights& out) { bind_llama_layer(binder, hparams, layer, true, out); },
    .qkv = llama_qkv,
    .mix = llama_mix,
};

}  // namespace winnow
