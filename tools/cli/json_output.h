// The documented --json objects; see docs/json.md.
#pragma once

#include <winnow/winnow.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "options.h"
#include "receipt.h"

namespace winnow::cli {

using Json = nlohmann::ordered_json;

/// Every option, snake_case; `cache` with the defaults filled in.
Json options_json(const Options& options, const CacheOptions& cache);
/// tokens, kv, timing and logits_hash of a run.
Json report_json(const RunReport& run);
/// The object of `winnow run --json`.
Json run_json(const Model& model, const Options& options, const RunReport& run);
/// The object of `winnow inspect --json`.
Json kept_json(const std::vector<std::int32_t>& tokens, const std::vector<KeptLayer>& layers);
/// The shape of a model.
Json model_json(const ModelInfo& info);

/// One line of JSON on stdout; bytes that are not UTF-8 become U+FFFD.
void write_json(const Json& object);

}  // namespace winnow::cli
