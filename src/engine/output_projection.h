// A layer's output projection as the policies read it.
#pragma once

#include "engine/model_impl.h"

namespace winnow {

/// W_o of `layer` as floats, [H][D][E padded to kColumnBlock]: row (h, d) is what channel d of
/// query head h adds to the layer's output. Takes H D E floats from `meter`. Throws a failure Error
/// where the file stores it in a type that ggml cannot widen.
Buffer<float> output_projection(const Model::Impl& model, int layer, MemoryMeter* meter);

}  // namespace winnow
