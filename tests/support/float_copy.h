// A GGUF file with its quantised weights written out as float32.
#pragma once

#include <string>

namespace winnow::testing {

/// Copies `from` to `to` with every quantised tensor dequantised: the same weights, but products
/// with them no longer round the activations to 8 bits. Throws std::runtime_error.
void write_float_copy(const std::string& from, const std::string& to);

}  // namespace winnow::testing
