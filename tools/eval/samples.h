// A dataset's samples as prompts of a run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "eval/suite.h"

namespace winnow::eval {

/// Names between commas, blanks dropped.
std::vector<std::string> split_names(const std::string& list);

/// Tokens that the model's chat template adds around a user's message; 0 without a template.
int template_tokens(const Model& model);

/// A prompt per sample, through the chat template where the sample says so and the model has one.
/// `score` gets the sample that a prompt is of. Throws a usage Error that names the first prompt
/// which does not fit into the context with its answer.
PromptSet prompts_of(
    Dataset dataset, const Settings& settings, const std::shared_ptr<const Model>& model,
    const std::function<double(const Sample& sample, const std::string& reply)>& score);

}  // namespace winnow::eval
