// A model's shape as the blocks need it.
#pragma once

#include "core/rope.h"

namespace winnow {

struct Hparams {
    int layers = 0;       ///< L
    int query_heads = 0;  ///< H
    int kv_heads = 0;     ///< G
    int head_dim = 0;     ///< D
    int embedding = 0;    ///< E
    int feed_forward = 0;
    int vocabulary = 0;  ///< V
    int trained_context = 0;
    float rms_eps = 1e-5F;
    RopeParams rope;
};

}  // namespace winnow
