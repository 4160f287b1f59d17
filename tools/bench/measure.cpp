#include "bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "bench/winnow_engine.h"

namespace winnow::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Tokens = std::span<const std::int32_t>;

// Enough to map the weights and to start every thread, and soon done.
constexpr std::size_t kWarmPrompt = 64;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// One engine at one context, with what was measured of it so far.
struct Lane {
    std::unique_ptr<Engine> engine;
    Result about;  // what all of its results have in common
    Samples prefill_tps, compress_share;
    struct Decode {
        Samples tps, attention_ms, weights_ms;
    };
    std::vector<Decode> decode;  // parallel to Settings::sessions
};

class ContextRun {
  public:
    ContextRun(const Settings& settings, Tokens tokens, int context, const ProgressLine& progress)
        : settings_(settings), tokens_(tokens), context_(context), progress_(progress) {}

    void add(std::unique_ptr<Engine> engine, Result about) {
        about.context = context_;
        Lane& lane = lanes_.emplace_back();
        lane.engine = std::move(engine);
        lane.about = std::move(about);
        lane.decode.resize(settings_.sessions.size());
    }

    std::vector<Result> run() {
        for (Lane& lane : lanes_) warm_up(lane);
        const int prompts = context_ < kLongContext ? settings_.repeats : 1;
        for (int repeat = 0; repeat < settings_.repeats; ++repeat) {
            for (Lane& lane : lanes_) {
                progress_("context " + std::to_string(context_) + ", repeat " +
                          std::to_string(repeat + 1) + " of " + std::to_string(settings_.repeats) +
                          ": " + lane.about.label());
                if (repeat < prompts) prefill(lane);
                for (std::size_t i = 0; i < settings_.sessions.size(); ++i) decode(lane, i);
            }
        }
        std::vector<Result> results;
        for (const Lane& lane : lanes_) collect(lane, results);
        return results;
    }

  private:
    Tokens prompt() const { return tokens_.first(static_cast<std::size_t>(context_)); }

    void warm_up(Lane& lane) {
        lane.engine->reset();
        lane.engine->prefill(prompt().first(std::min(prompt().size(), kWarmPrompt)));
        lane.engine->rewind(1);
        lane.engine->step(tokens_.first(1));
    }

    void prefill(Lane& lane) {
        lane.engine->reset();
        const auto start = Clock::now();
        lane.engine->prefill(prompt());
        lane.prefill_tps.values.push_back(1000.0 * context_ / ms_since(start));
        if (lane.engine->tells_split()) {
            lane.compress_share.values.push_back(lane.engine->compress_share());
        }
    }

    // The tokens of step `step`: the ones that follow in the text, another one for each session.
    std::vector<std::int32_t> step_tokens(int step, int sessions) const {
        std::vector<std::int32_t> tokens(static_cast<std::size_t>(sessions));
        const int span = settings_.decode_tokens + kWarmSteps;
        for (int s = 0; s < sessions; ++s) tokens[s] = tokens_[context_ + (step + s) % span];
        return tokens;
    }

    void decode(Lane& lane, std::size_t index) {
        const int sessions = settings_.sessions[index];
        Engine& engine = *lane.engine;
        engine.rewind(sessions);
        int step = 0;
        while (step < kWarmSteps) engine.step(step_tokens(step++, sessions));
        const Split before = engine.split();
        const auto start = Clock::now();
        for (; step < kWarmSteps + settings_.decode_tokens; ++step) {
            engine.step(step_tokens(step, sessions));
        }
        const double ms = ms_since(start);
        const double tokens = static_cast<double>(settings_.decode_tokens) * sessions;
        Lane::Decode& to = lane.decode[index];
        to.tps.values.push_back(1000.0 * tokens / ms);
        const Split after = engine.split();
        to.attention_ms.values.push_back((after.attention_ms - before.attention_ms) / tokens);
        to.weights_ms.values.push_back((after.weights_ms - before.weights_ms) / tokens);
        engine.rewind(0);  // the copies of a long cache would add up over the engines
    }

    void collect(const Lane& lane, std::vector<Result>& results) const {
        for (std::size_t i = 0; i < settings_.sessions.size(); ++i) {
            Result result = lane.about;
            result.sessions = settings_.sessions[i];
            result.decode_tps = lane.decode[i].tps;
            result.prefill_tps = lane.prefill_tps;
            result.kv_bytes = lane.engine->kv_bytes() * result.sessions;
            if (lane.engine->tells_split()) {
                result.attention_ms = lane.decode[i].attention_ms.median();
                result.weights_ms = lane.decode[i].weights_ms.median();
                result.compress_share = lane.compress_share.median();
            }
            results.push_back(std::move(result));
        }
    }

    const Settings& settings_;
    Tokens tokens_;
    int context_;
    const ProgressLine& progress_;
    std::vector<Lane> lanes_;
};

Result about_winnow(const std::shared_ptr<const Model>& model, const CacheOptions& cache,
                    const SessionOptions& session, int context) {
    const CacheOptions filled = Session(model, cache, session).options();
    Result about;
    about.engine = "winnow";
    about.method = filled.method;
    about.quant_method = filled.quant_method;
    about.nbits = filled.nbits;
    about.nbits_k = filled.nbits_k;
    about.nbits_v = filled.nbits_v;
    about.max_capacity_prompts =
        filled.max_capacity_prompts > 0
            ? filled.max_capacity_prompts
            : static_cast<int>(std::lround(filled.max_capacity_prompts_ratio * context));
    return about;
}

Result about_rival(const Rival& rival, const std::string& cache_type) {
    Result about;
    about.engine = rival.info().name;
    about.method = "full";
    about.quant_method = cache_type;
    about.nbits = about.nbits_k = about.nbits_v = rival_bits(cache_type);
    return about;
}

void set_ratios(std::vector<Result>& results) {
    const auto ratio = [](const Samples& a, const Samples& b) { return a.median() / b.median(); };
    for (Result& result : results) {
        for (const Result& other : results) {
            if (other.context != result.context) continue;
            const bool rival =
                other.engine != "winnow" && other.quant_method == rival_cache_types().front();
            if (rival && other.sessions == result.sessions) {
                result.ratio_decode = ratio(result.decode_tps, other.decode_tps);
                result.ratio_prefill = ratio(result.prefill_tps, other.prefill_tps);
            }
            if (result.sessions > 1 && other.sessions == 1 && other.label() == result.label()) {
                result.ratio_sessions = ratio(result.decode_tps, other.decode_tps);
            }
        }
    }
}

}  // namespace

int Settings::tokens_needed() const {
    return *std::max_element(contexts.begin(), contexts.end()) + kWarmSteps + decode_tokens;
}

double Samples::median() const {
    if (values.empty()) return 0.0;
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t middle = sorted.size() / 2;
    return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2.0;
}

double Samples::spread() const {
    if (values.empty()) return 0.0;
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return (*high - *low) / median();
}

double Result::token_ms() const {
    return 1000.0 / decode_tps.median();
}

std::optional<double> Result::kv_gb_per_s() const {
    if (!attention_ms || *attention_ms <= 0.0) return std::nullopt;
    return static_cast<double>(kv_bytes) / sessions / *attention_ms / 1e6;
}

std::string Result::label() const {
    if (engine != "winnow") return engine + " " + quant_method;
    std::string bits = std::to_string(nbits_k);
    if (nbits_v != nbits_k) bits += "/" + std::to_string(nbits_v);
    return engine + " " + method +
           (max_capacity_prompts > 0 ? " " + std::to_string(max_capacity_prompts) : "") + ", " +
           (quant_method == "none" ? "" : quant_method + " ") + bits + " bits";
}

std::vector<Result> measure(const std::shared_ptr<const Model>& model, const Rival* rival,
                            const Settings& settings, Tokens tokens, const ProgressLine& progress) {
    std::vector<Result> results;
    const int most_sessions = *std::max_element(settings.sessions.begin(), settings.sessions.end());
    for (const int context : settings.contexts) {
        ContextRun run(settings, tokens, context, progress);
        if (rival != nullptr) {
            const int positions = context + kWarmSteps + settings.decode_tokens;
            for (const std::string& type : settings.rival_caches) {
                run.add(rival->engine(type, positions, most_sessions), about_rival(*rival, type));
            }
        }
        for (const CacheOptions& cache : settings.caches) {
            run.add(make_winnow_engine(model, cache, settings.session),
                    about_winnow(model, cache, settings.session, context));
        }
        for (Result& result : run.run()) results.push_back(std::move(result));
    }
    set_ratios(results);
    return results;
}

}  // namespace winnow::bench
