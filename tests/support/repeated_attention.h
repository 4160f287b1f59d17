// What the two-pass policies score by, in double precision and straight from the formulas.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace winnow::testing {

/// [L * G] of [T]: the largest weight that each token gets from any query and query head as the
/// model reads the prompt and, behind it, each piece of `piece` tokens again, in a softmax over
/// four sinks, the piece and what repeats it. With `plus` the weight from a query at input h of the
/// layer counts |W_o v| / |h| times.
std::vector<std::vector<double>> repeated_scores(const std::shared_ptr<const Model>& model,
                                                 const std::vector<std::int32_t>& tokens, int piece,
                                                 bool plus);

/// Tokens that each head keeps where one threshold leaves `total` over all of them, four sinks each
/// among these.
std::vector<std::vector<std::int32_t>> best_of_all(const std::vector<std::vector<double>>& scores,
                                                   int total);

/// Tokens that one side alone keeps.
int different(const std::vector<std::vector<std::int32_t>>& want,
              const std::vector<KeptLayer>& kept);

}  // namespace winnow::testing
