#include "text/sampler.h"

#include <llama.h>
#include <winnow/error.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "text/grammar_check.h"
#include "text/llama_logs.h"
#include "text/schema_grammar.h"
#include "text/vocab.h"

namespace winnow {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int32_t kWholeContext = 1 << 20;  // tokens that repeat_last_n = -1 looks back at

struct FreeSampler {
    void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using SamplerPtr = std::unique_ptr<llama_sampler, FreeSampler>;

void need(bool ok, const std::string& flag, double value, const std::string& right) {
    if (ok) return;
    throw usage_error(flag + " is " + std::to_string(value) + "; it must be " + right + ".");
}

void check_options(const SamplingOptions& o) {
    need(std::isfinite(o.temp) && o.temp >= 0, "--temp", o.temp, "0 (greedy) or more");
    need(o.top_p >= 0 && o.top_p <= 1, "--top-p", o.top_p, "between 0 and 1");
    need(o.min_p >= 0 && o.min_p <= 1, "--min-p", o.min_p, "between 0 and 1");
    need(std::isfinite(o.repeat_penalty) && o.repeat_penalty > 1e-6F, "--repeat-penalty",
         o.repeat_penalty, "above 0");
    need(o.repeat_last_n >= -1 && o.repeat_last_n <= kWholeContext, "--repeat-last-n",
         o.repeat_last_n, "between -1 (all) and 1048576");
    need(std::isfinite(o.presence_penalty), "--presence-penalty", o.presence_penalty, "finite");
    need(std::isfinite(o.frequency_penalty), "--frequency-penalty", o.frequency_penalty, "finite");
    if (!o.grammar.empty() && !o.json_schema.empty()) {
        throw usage_error("--grammar and --json-schema exclude each other; give one of them.");
    }
}

uint32_t fresh_seed() {
    std::random_device device;
    uint32_t seed = device();
    while (seed == SamplingOptions::kRandomSeed) seed = device();
    return seed;
}

SamplerPtr make_chain(const SamplingOptions& o, uint32_t seed, int32_t vocab_size) {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    SamplerPtr chain(llama_sampler_chain_init(params));
    const auto add = [&](llama_sampler* sampler) { llama_sampler_chain_add(chain.get(), sampler); };
    if (o.repeat_penalty != 1 || o.presence_penalty != 0 || o.frequency_penalty != 0) {
        add(llama_sampler_init_penalties(
            vocab_size, o.repeat_last_n < 0 ? kWholeContext : o.repeat_last_n, o.repeat_penalty,
            o.frequency_penalty, o.presence_penalty));
    }
    if (o.temp == 0) {
        add(llama_sampler_init_greedy());  // the first of equal logits, so the lower id
        return chain;
    }
    if (o.top_k > 0) add(llama_sampler_init_top_k(o.top_k));
    if (o.top_p < 1) add(llama_sampler_init_top_p(o.top_p, /*min_keep=*/1));
    if (o.min_p > 0) add(llama_sampler_init_min_p(o.min_p, /*min_keep=*/1));
    add(llama_sampler_init_temp(o.temp));
    add(llama_sampler_init_dist(seed));
    return chain;
}

SamplerPtr make_grammar(const Vocab& vocab, const SamplingOptions& o) {
    if (o.grammar.empty() && o.json_schema.empty()) return nullptr;
    const std::string flag = o.grammar.empty() ? "--json-schema" : "--grammar";
    if (!vocab.has_tokens()) {
        throw usage_error(flag + " needs a tokenizer, and the model's file has none.");
    }
    const std::string text = o.grammar.empty() ? grammar_of_schema(o.json_schema) : o.grammar;
    check_grammar(text, flag, [&](std::string_view name) {
        return vocab.tokenize(name, false, true).size() == 1;
    });
    init_llama();
    take_llama_error();
    SamplerPtr grammar;
    try {
        grammar.reset(llama_sampler_init_grammar(vocab.handle(), text.c_str(), "root"));
    } catch (const std::exception& error) {
        throw usage_error(flag + " is refused: " + error.what() + ".");
    }
    if (!grammar) throw usage_error(flag + " is refused by libllama: " + take_llama_error() + ".");
    return grammar;
}

}  // namespace

struct TokenSampler::Impl {
    std::shared_ptr<const void> vocab_alive;
    int32_t vocab_size = 0;    // V
    int32_t n_candidates = 0;  // ids below it may be drawn
    uint32_t seed = 0;
    std::vector<int32_t> end_tokens;
    std::vector<int32_t> banned;  // ids never drawn
    SamplerPtr chain;
    SamplerPtr grammar;
    bool grammar_broken = false;
    std::vector<llama_token_data> candidates;  // [n_candidates]

    bool fill(std::span<const float> logits);
    int32_t draw();
    bool grammar_takes(int32_t token) const;
    int32_t draw_with_grammar(std::span<const float> logits);
};

/// Sets the candidates; returns whether any of them is possible.
bool TokenSampler::Impl::fill(std::span<const float> logits) {
    candidates.resize(static_cast<size_t>(n_candidates));
    for (size_t i = 0; i < candidates.size(); ++i) {
        const float logit = std::isnan(logits[i]) ? kNever : logits[i];
        candidates[i] = {static_cast<llama_token>(i),
                         std::min(logit, std::numeric_limits<float>::max()), 0.0F};
    }
    for (const int32_t id : banned) candidates[static_cast<size_t>(id)].logit = kNever;
    return std::any_of(candidates.begin(), candidates.end(),
                       [](const llama_token_data& c) { return c.logit > kNever; });
}

int32_t TokenSampler::Impl::draw() {
    llama_token_data_array array{candidates.data(), candidates.size(), -1, false};
    llama_sampler_apply(chain.get(), &array);
    if (array.selected < 0 || static_cast<size_t>(array.selected) >= array.size) {
        throw failure("The sampler selected no token; the logits may be broken.");
    }
    return array.data[array.selected].id;
}

bool TokenSampler::Impl::grammar_takes(int32_t token) const {
    if (token >= n_candidates) return false;
    llama_token_data one{token, 1.0F, 0.0F};
    llama_token_data_array array{&one, 1, -1, false};
    llama_sampler_apply(grammar.get(), &array);
    return one.logit > kNever;
}

int32_t TokenSampler::Impl::draw_with_grammar(std::span<const float> logits) {
    // Filtering the whole vocabulary is slow, and the free choice mostly fits.
    if (fill(logits)) {
        const int32_t token = draw();
        if (grammar_takes(token)) return token;
    }
    fill(logits);
    llama_token_data_array array{candidates.data(), candidates.size(), -1, false};
    llama_sampler_apply(grammar.get(), &array);
    const bool possible = std::any_of(candidates.begin(), candidates.end(),
                                      [](const llama_token_data& c) { return c.logit > kNever; });
    if (possible) return draw();
    // A finished grammar leaves only the end, whatever ignore_eos says.
    for (const int32_t id : end_tokens) {
        if (grammar_takes(id)) return id;
    }
    throw failure("No token of the vocabulary fits the grammar here; check --grammar.");
}

TokenSampler::TokenSampler(const Vocab& vocab, const SamplingOptions& options, int vocab_size)
    : impl_(std::make_unique<Impl>()) {
    check_options(options);
    if (vocab_size <= 0) {
        throw failure("A sampler needs at least one logit; the vocabulary size is " +
                      std::to_string(vocab_size) + ".");
    }
    impl_->vocab_alive = vocab.keep_alive();
    impl_->vocab_size = vocab_size;
    // Logits may be padded past the tokenizer's ids.
    impl_->n_candidates = vocab.has_tokens() ? std::min(vocab_size, vocab.size()) : vocab_size;
    impl_->seed = options.seed == SamplingOptions::kRandomSeed ? fresh_seed() : options.seed;
    for (int32_t id = 0; vocab.has_tokens() && id < impl_->n_candidates; ++id) {
        if (vocab.is_eog(id)) impl_->end_tokens.push_back(id);
    }
    if (options.ignore_eos) impl_->banned = impl_->end_tokens;
    for (const int32_t id : vocab.suppressed()) {
        if (id >= 0 && id < impl_->n_candidates) impl_->banned.push_back(id);
    }
    impl_->chain = make_chain(options, impl_->seed, vocab_size);
    impl_->grammar = make_grammar(vocab, options);
}

TokenSampler::~TokenSampler() = default;
TokenSampler::TokenSampler(TokenSampler&&) noexcept = default;
TokenSampler& TokenSampler::operator=(TokenSampler&&) noexcept = default;

int32_t TokenSampler::sample(std::span<const float> logits) {
    if (logits.size() != static_cast<size_t>(impl_->vocab_size)) {
        throw failure("The sampler got " + std::to_string(logits.size()) + " logits; it needs " +
                      std::to_string(impl_->vocab_size) + ".");
    }
    if (impl_->grammar_broken) {
        throw failure("The grammar refused the last token; reset the sampler.");
    }
    if (impl_->grammar) return impl_->draw_with_grammar(logits);
    if (impl_->fill(logits)) return impl_->draw();
    throw failure("All " + std::to_string(logits.size()) +
                  " logits are NaN, -inf or banned; no token can be drawn.");
}

void TokenSampler::accept(int32_t token, bool generated) {
    if (token < 0 || token >= impl_->vocab_size) {
        throw failure("Token " + std::to_string(token) + " cannot be accepted; ids are 0 to " +
                      std::to_string(impl_->vocab_size - 1) + ".");
    }
    if (generated && impl_->grammar && !impl_->grammar_broken) {
        // libllama aborts on an end token that does not fit, so ask first.
        bool taken = impl_->grammar_takes(token);
        try {
            if (taken) llama_sampler_accept(impl_->grammar.get(), token);
        } catch (const std::exception&) {
            taken = false;
            impl_->grammar_broken = true;
        }
        if (!taken) {
            throw failure("Token " + std::to_string(token) +
                          " does not fit the grammar; accept only tokens that were sampled.");
        }
    }
    llama_sampler_accept(impl_->chain.get(), token);
}

void TokenSampler::reset() {
    llama_sampler_reset(impl_->chain.get());
    if (impl_->grammar) llama_sampler_reset(impl_->grammar.get());
    impl_->grammar_broken = false;
}

uint32_t TokenSampler::seed() const noexcept {
    return impl_->seed;
}

}  // namespace winnow
