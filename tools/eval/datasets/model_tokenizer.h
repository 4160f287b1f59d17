// A model's tokenizer in the form that datasets take.
#pragma once

#include <winnow/winnow.h>

#include <memory>

#include "eval/dataset.h"

namespace winnow::eval {

/// Keeps the model alive.
Tokenizer model_tokenizer(std::shared_ptr<const Model> model);

}  // namespace winnow::eval
