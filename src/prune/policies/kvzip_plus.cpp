// KVzip+ (arXiv 2601.07891): what the model looks at when it is asked to repeat the text, times
// what that adds to the layer's output, over what is there already.
#include <algorithm>

#include "prune/selector.h"
#include "prune/token_rows.h"

namespace winnow {

namespace {

// max over query heads and queries j of weight_j |W_o v| / |h_j|.
void score(const Observation& seen, const PolicyParams& /*params*/,
           std::span<float* const> scores) {
    const std::vector<std::vector<float>> norms = output_norms(seen, norm2);
    const int group = seen.query_heads / seen.kv_heads;
    for (int g = 0; g < seen.kv_heads; ++g) {
        const auto tokens = static_cast<std::size_t>(seen.heads[g].tokens);
        std::fill_n(scores[g], tokens, 0.0F);
        for (int r = 0; r < group; ++r) {
            const float* peaks = seen.heads[g].column_sums + r * tokens;
            const std::vector<float>& norm = norms[g * group + r];
            for (std::size_t t = 0; t < tokens; ++t) {
                scores[g][t] = std::max(scores[g][t], peaks[t] * norm[t]);
            }
        }
    }
}

}  // namespace

extern const Policy policy_kvzip_plus;
const Policy policy_kvzip_plus{
    .name = "kvzip_plus",
    .paper = "2601.07891",
    .summary =
        "kvzip with each weight times norm2(W_o v) over norm2(h), h being the layer's input where "
        "the query comes from; one threshold for all heads and layers; the sinks",
    .departures =
        "h is the residual stream, which kvpress takes after the layer's norm; the rest as kvzip",
    .needs = kNeedsPeaks | kNeedsPerInput | kNeedsValues | kNeedsOutput,
    .default_sinks = 4,
    .protect = protect_ends,
    .score = score,
};

}  // namespace winnow
