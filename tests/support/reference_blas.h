// libllama without its 8-bit rounding: ggml's BLAS device widens weights and multiplies in float32.
#pragma once

namespace winnow::testing {

/// Registers ggml's BLAS device with the whole process: every ReferenceLlama made afterwards
/// multiplies prompts by it, 32 tokens or more at once. False where this build has no BLAS.
bool use_blas_in_libllama();

}  // namespace winnow::testing
