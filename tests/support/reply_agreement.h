// The full cache's replies and scores beside libllama's, on prompts as `winnow eval needle` and
// `winnow eval ruler` make and cut them. The prompts were fixed before any was run: eight tasks
// (both needles; niah_single_1, _2, _3, niah_multikey_1, _2 and vt), five prompts each of 1,000
// tokens.
#pragma once

#include <winnow/winnow.h>

#include <memory>
#include <string>

#include "support/reference_llama.h"

namespace winnow::testing {

struct ReplyTotals {
    int prompts = 0, equal = 0, equal_scores = 0;
    double here = 0.0, there = 0.0;  ///< sums of scores
    float lead = 0.0F;               ///< the largest of the reference's token over ours
};

/// What prompts and replies take of a context.
constexpr int kReplyContext = 1536;

/// Winnow's replies beside the reference's; prints every difference and the totals.
ReplyTotals compare_replies(const std::string& what, const std::shared_ptr<const Model>& model,
                            ReferenceLlama& reference);

/// At least 95 of 100 scores are equal, and only near ties are swayed.
void expect_equal_scores(const ReplyTotals& totals);

}  // namespace winnow::testing
