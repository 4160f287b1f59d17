// Reads a model's shape from GGUF keys.
#pragma once

#include "gguf/precheck.h"
#include "model/arch.h"

namespace winnow {

/// Throws a failure Error that names the file and the key when a key is missing, out of range or
/// asks for something the blocks do not compute (experts, sliding windows, uneven layers).
Hparams read_hparams(const gguf::File& file, const Arch& arch);

}  // namespace winnow
