// --s-len, --e-len and --step.
#pragma once

#include <vector>

#include "eval/suite.h"

namespace winnow::eval {

/// s_len, s_len + step, ... up to e_len; `otherwise` where none is given. Throws a usage Error for
/// lengths that, with `more` tokens, pass the model's context.
std::vector<int> lengths_of(const Settings& settings, const Model& model,
                            const std::vector<int>& otherwise, int more);

}  // namespace winnow::eval
