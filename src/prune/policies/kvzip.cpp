// KVzip (arXiv 2505.23416): what the model looks at when it is asked to repeat the text.
// The engine finds one threshold for all heads and layers.
#include "prune/selector.h"
#include "prune/whole_head.h"

namespace winnow {

extern const Policy policy_kvzip;
const Policy policy_kvzip{
    .name = "kvzip",
    .paper = "2505.23416",
    .summary =
        "the keys that the model attends to as it repeats the text, in pieces of 2,048 tokens; one "
        "threshold for all heads and layers; the sinks",
    .departures =
        "the prompt is read a second time behind itself and all layers' K and V stay at 16 bits "
        "until then, so the peak of prefill is the full cache; the system prompt is kept only as "
        "far as the sinks or --pin reach; while decoding each head keeps within what the prompt "
        "left it, by the largest attention so far",
    .needs = kNeedsPeaks,
    .default_sinks = 4,
    .protect = protect_ends,
    .score = peak_scores,
};

}  // namespace winnow
