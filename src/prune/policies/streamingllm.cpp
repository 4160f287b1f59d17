// StreamingLLM (arXiv 2309.17453): attention sinks and a sliding window, whatever the text says.
#include <algorithm>

#include "prune/policy.h"

namespace winnow {

namespace {

Protected protect(const PolicyParams& params, int budget, int tokens) {
    const int keep = std::min(budget, tokens);
    const int front = std::clamp(params.n_sink, 0, std::max(0, keep));
    return {.front = front, .back = keep - front};
}

}  // namespace

extern const Policy policy_streamingllm;
const Policy policy_streamingllm{
    .name = "streamingllm",
    .paper = "2309.17453",
    .summary = "the first n_sink tokens, then the most recent ones",
    .departures =
        "the needle runner of arXiv 2412.12706 keeps the first cap - 32 and the last 32 "
        "instead",
    .needs = kNeedsNothing,
    .default_sinks = 4,
    .protect = protect,
};

}  // namespace winnow
