#include "json_output.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "flags.h"
#include "terminal.h"

namespace winnow::cli {
namespace {

Json score_json(float score) {
    return std::isfinite(score) ? Json(score) : Json(nullptr);
}

// A float as it was written: 0.95, not the double nearest to the float nearest to it.
template <class T>
Json value_json(const T& value) {
    return value;
}
Json value_json(float value) {
    return std::strtod(format("%.7g", static_cast<double>(value)).c_str(), nullptr);
}

Json head_json(const KeptHead& head) {
    Json scores = Json::array();
    for (const float score : head.scores) scores.push_back(score_json(score));
    return {{"positions", head.positions}, {"scores", std::move(scores)}, {"bits", head.bits}};
}

Json precisions_json(const std::vector<PrecisionStats>& precisions) {
    Json list = Json::array();
    for (const PrecisionStats& at : precisions) {
        list.push_back({{"bits_k", at.bits_k},
                        {"bits_v", at.bits_v},
                        {"tokens", at.tokens},
                        {"bytes", at.bytes}});
    }
    return list;
}

}  // namespace

Json options_json(const Options& options, const CacheOptions& cache) {
    Json object = Json::object();
    visit_run_options(options, [&](const Flag& flag, const auto& field) {
        object[json_key(flag)] = value_json(field);
    });
    visit_cache_options(cache, [&](const char* name, const auto& field, const char*) {
        std::string key = name;
        std::replace(key.begin(), key.end(), '-', '_');
        object[key] = field;
    });
    return object;
}

Json report_json(const RunReport& run) {
    const CacheStats& stats = run.stats;
    return {
        {"tokens", {{"prompt", run.prompt_tokens}, {"generated", run.generated_tokens}}},
        {"kv",
         {{"bytes", stats.bytes},
          {"bytes_peak", stats.bytes_peak},
          {"bytes_full_f16", stats.bytes_full_f16},
          {"allocated_bytes", stats.allocated_bytes},
          {"policy_bytes", stats.policy_bytes},
          {"prefill_peak_bytes", stats.prefill_peak_bytes},
          {"kept", stats.kept},
          {"bits_k", stats.bits_k},
          {"bits_v", stats.bits_v},
          {"evictions", stats.evictions},
          {"repackings", stats.repackings},
          {"demotions", stats.demotions},
          {"dropped_mass", stats.dropped_mass},
          {"dropped_mass_worst", stats.dropped_mass_worst},
          {"budget_bytes", stats.budget_bytes},
          {"guard_raised", stats.guard_raised},
          {"precisions", precisions_json(stats.precisions)},
          {"lossy", run.lossy()}}},
        {"timing",
         {{"load_ms", run.load_ms},
          {"prefill_ms", run.timing.prefill_ms},
          {"compress_ms", run.timing.compress_ms},
          {"decode_ms", run.decode_ms},
          {"prefill_tps", run.prefill_tps()},
          {"decode_tps", run.decode_tps()}}},
        {"logits_hash", run.logits_hash},
    };
}

Json run_json(const Model& model, const Options& options, const RunReport& run) {
    Json object{{"text", run.text}, {"stop", run.stop}};
    object.update(report_json(run));
    const ModelInfo& info = model.info();
    object["model"] = {
        {"name", info.name}, {"architecture", info.architecture}, {"sha256", model.sha256()}};
    object["options"] = options_json(options, run.cache);
    object["session"] = nullptr;
    if (!options.session.empty()) {
        object["session"] = {{"file", options.session},
                             {"restored_tokens", run.restored_tokens},
                             {"saved", run.session_saved}};
    }
    object["version"] = version();
    return object;
}

Json kept_json(const std::vector<std::int32_t>& tokens, const std::vector<KeptLayer>& layers) {
    Json rows = Json::array();
    for (const KeptLayer& layer : layers) {
        Json heads = Json::array();
        for (const KeptHead& head : layer.heads) heads.push_back(head_json(head));
        rows.push_back({{"budget", layer.budget}, {"heads", std::move(heads)}});
    }
    return {{"tokens", tokens}, {"layers", std::move(rows)}};
}

Json model_json(const ModelInfo& info) {
    return {
        {"path", info.path},
        {"name", info.name},
        {"architecture", info.architecture},
        {"layers", info.layers},
        {"query_heads", info.query_heads},
        {"kv_heads", info.kv_heads},
        {"head_dim", info.head_dim},
        {"embedding", info.embedding},
        {"feed_forward", info.feed_forward},
        {"vocabulary", info.vocabulary},
        {"trained_context", info.trained_context},
        {"weight_bytes", info.weight_bytes},
        {"parameters", info.parameters},
    };
}

void write_json(const Json& object) {
    write_out(object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    flush_out();
}

}  // namespace winnow::cli
