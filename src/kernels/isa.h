// Which instruction set the kernels use.
#pragma once

#include <string>
#include <vector>

namespace winnow {

/// The sets that this machine and this build have, best first.
std::vector<std::string> available_isas();

/// Kernels run on the set called `name` from now on; "" is the best again. Throws a usage Error if
/// this machine lacks it or the name is unknown. Not while a kernel runs.
void force_isa(const std::string& name);

/// Applies WINNOW_ISA (SSE2, SSE4, AVX2, AVX3_DL, NEON) if it is set: kernels then run on
/// that set and no better one. Throws as force_isa. Called by the library before the first kernel.
void apply_forced_isa();

}  // namespace winnow
