// llama.cpp's own caches, for `winnow eval fidelity --against llama.cpp`.
#pragma once

#include <winnow/winnow.h>

#include "eval/foreign.h"

namespace winnow::bench {

/// f16, q8_0 and q4_0, the last two also without the rotation that llama.cpp applies by default,
/// and each also "prompt": the prompt alone as those restore it, packed once it was read at 16
/// bits, and the forced tokens f16, as our own caches are measured. Loads the file of `model` a
/// second time. Flash attention is on, which a packed V needs.
eval::ForeignCaches load_llama_caches(const Model& model);

}  // namespace winnow::bench
