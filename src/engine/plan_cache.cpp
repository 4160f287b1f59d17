// `winnow plan`: a plan without a model's weights.
#include <algorithm>

#include "core/free_memory.h"
#include "engine/budget.h"
#include "engine/model_hash.h"
#include "engine/model_impl.h"
#include "engine/profile.h"
#include "gguf/checks.h"
#include "gguf/precheck.h"
#include "model/arch.h"
#include "model/read_hparams.h"
#include "winnow/error.h"
#include "winnow/plan.h"

namespace winnow {

namespace {

constexpr int kChunk = 512;

std::uint64_t fixed_bytes(const Plan& plan, const Hparams& h, int layer) {
    const std::vector<SpanLayout> tiers = plan.layouts(layer);
    const FormatSpec& spec = tiers.back().spec;
    std::uint64_t bytes = 4ULL * plan.memory.notes;
    if (spec.format->side_floats != nullptr) {
        bytes +=
            4ULL * spec.format->side_floats(spec) * (spec.format->side_per_head ? h.kv_heads : 1);
    }
    if (!plan.memory.release_ring) {
        bytes += 2ULL * plan.memory.window * h.query_heads * h.head_dim;
    }
    return bytes;
}

double token_bytes(const Plan& plan, const Hparams& h, const SpanLayout& layout) {
    const FormatSpec& spec = layout.spec;
    const int n =
        spec.format->tile_tokens != nullptr ? spec.format->tile_tokens(spec) : spec.group_size;
    const double rows = static_cast<double>(spec.format->bytes(spec, Side::key, n) +
                                            spec.format->bytes(spec, Side::value, n)) /
                        n;
    const int sums = !plan.memory.column_sums ? 0
                     : plan.memory.one_row    ? 1
                                              : h.query_heads / h.kv_heads;
    return rows + 4.0 + 4.0 * sums;
}

void plan_layer(const Plan& plan, const Hparams& h, int layer, CachePlan& out) {
    PlannedLayer& row = out.layers.emplace_back();
    row.fixed = fixed_bytes(plan, h, layer);
    if (plan.is_mixed()) {
        row.bytes = static_cast<std::uint64_t>(plan.mixed.layer_bytes[layer]);
        const double room =
            static_cast<double>(row.bytes - std::min(row.bytes, row.fixed)) / h.kv_heads;
        const auto fit = [&](const PlannedTier& tier) {
            return static_cast<int>(
                std::min(room / tier.token_bytes, static_cast<double>(out.context)));
        };
        row.tokens = fit(out.tiers[out.tiers.size() / 2]);
        row.tokens_exact = fit(out.tiers.front());
        row.tokens_most = fit(out.tiers.back());
        return;
    }
    const int budget = std::min(plan.budget(layer, out.context, out.context), out.context);
    row.tokens = row.tokens_exact = row.tokens_most = budget;
    row.bytes = worst_layer_bytes(plan, h, layer, budget);
}

// By the profile of `file` where one is given; it does not change how many bytes there are.
CachePlan plan_of(const Hparams& h, const CacheOptions& cache, int context,
                  const gguf::File* file = nullptr) {
    Plan plan = make_plan(cache, h);
    if (file != nullptr) {
        use_profile(plan, h, [&] { return file_sha256(file->path(), *file); });
    }
    CachePlan out;
    out.cache = plan.options;
    out.context = context;
    for (const SpanLayout& layout : plan.layouts(0)) {
        out.tiers.push_back({.bits_k = layout.spec.bits_k,
                             .bits_v = layout.spec.bits_v,
                             .token_bytes = token_bytes(plan, h, layout)});
    }
    for (int layer = 0; layer < h.layers; ++layer) {
        plan_layer(plan, h, layer, out);
        out.bytes += out.layers.back().bytes;
    }
    const auto tokens = static_cast<std::uint64_t>(context);
    const std::uint64_t layer_kv = tokens * h.kv_heads * (4U * h.head_dim + 4U);
    const auto chunk = static_cast<std::uint64_t>(std::min(context, kChunk));
    out.full_bytes = tokens * 4U * h.layers * h.kv_heads * h.head_dim;
    out.prefill_peak = out.bytes + layer_kv + 4U * tokens * h.embedding +
                       4U * chunk * (2U * h.query_heads + 2U * h.kv_heads) * h.head_dim +
                       4U * chunk * (3U * h.feed_forward + 4U * h.embedding);
    return out;
}

}  // namespace

CachePlan plan_cache(const std::string& path, const CacheOptions& cache, int context) {
    const gguf::File file = gguf::File::open(path);
    gguf::refuse_unsupported(file);
    const Arch& arch = find_arch(file);
    const Hparams h = read_hparams(file, arch);
    if (context < 1) {
        throw usage_error("--context is " + std::to_string(context) +
                          "; it must be at least 1, the tokens of the prompt.");
    }
    CachePlan out = plan_of(h, cache, context, &file);
    out.architecture = arch.name;
    return out;
}

void require_memory(const gguf::File& file, const Hparams& hparams, const LoadOptions& options) {
    const int read = std::max(options.least_tokens, 0);
    // An answer ends at the trained context, if not before.
    const int room = std::max(hparams.trained_context - read, 0);
    const int all = read + std::clamp(options.answer_tokens, 0, room);
    if (all < 1) {
        return;
    }
    std::uint64_t cache = plan_of(hparams, options.cache, all).bytes;
    if (read > 0) {
        cache = std::max(cache, plan_of(hparams, options.cache, read).prefill_peak);
    }
    // The file is mapped already, but none of its pages need be in memory yet.
    const std::uint64_t weights = file.file_bytes();
    const std::uint64_t left = memory_beside(weights);
    if (weights > available_memory() || cache > left) {
        throw file.error("its weights take " + std::to_string(weights >> 20) +
                         " MiB and the cache of " + std::to_string(all) + " tokens or more " +
                         std::to_string(cache >> 20) + " MiB, but only " +
                         std::to_string(left >> 20) +
                         " MiB of memory are left for a cache; use --max-capacity-prompts, fewer "
                         "bits, a shorter prompt or a smaller -n.");
    }
}

CacheOptions plan_equal_bytes(const Model& model, const CacheOptions& cache, int tokens,
                              std::uint64_t bytes) {
    CacheOptions with = cache;
    if (cache.method == "mixed") {
        with.max_capacity_prompts = 0;
        with.kv_budget = std::to_string(bytes);
        return with;
    }
    const Hparams& h = model.impl().hparams;
    const auto at = [&](int cap) {
        with.max_capacity_prompts_ratio = 0.0;
        with.max_capacity_prompts = cap;
        return bytes_after_prefill(make_plan(with, h, model.impl().rope), h, tokens);
    };
    int low = std::max(1, cache.n_sink + cache.window_size), high = std::max(low, tokens) + 1;
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        (at(middle) <= bytes ? low : high) = middle;
    }
    at(low);
    return with;
}

std::uint64_t parse_byte_count(const std::string& flag, const std::string& text) {
    return parse_bytes(flag, text);
}

}  // namespace winnow
