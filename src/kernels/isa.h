// Which instruction set the kernels use.
#pragma once

namespace winnow {

/// Applies WINNOW_ISA (SSE2, SSE4, AVX2, AVX3, AVX3_DL, NEON) if it is set: kernels then run on
/// that set and no better one. Throws a usage Error if this machine lacks it or the name is
/// unknown. Called once by the library before the first kernel.
void apply_forced_isa();

}  // namespace winnow
