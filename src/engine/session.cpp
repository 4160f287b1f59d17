#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/codebook_file.h"
#include "engine/decode.h"
#include "engine/prefill.h"
#include "engine/profile.h"
#include "engine/session_file.h"
#include "engine/session_impl.h"
#include "winnow/error.h"

namespace winnow {

int Session::Impl::context() const {
    return options.context > 0 ? options.context : hparams().trained_context;
}

int Session::Impl::longest() const {
    int most = 0;
    for (const SessionLayer& layer : layers) {
        most = std::max(most, layer.store->longest());
    }
    return most;
}

void Session::Impl::check_tokens(std::span<const std::int32_t> more, bool none) const {
    if (more.empty() && !none) {
        throw usage_error("the prompt has no tokens; give at least one.");
    }
    for (std::int32_t token : more) {
        if (token < 0 || token >= hparams().vocabulary) {
            throw usage_error("token " + std::to_string(token) +
                              " is not in the vocabulary, which has " +
                              std::to_string(hparams().vocabulary) + " tokens.");
        }
    }
    const std::uint64_t end = static_cast<std::uint64_t>(position) + more.size();
    const bool trained = end <= static_cast<std::uint64_t>(hparams().trained_context);
    if (!trained && !options.allow_long && context() >= hparams().trained_context) {
        throw usage_error("this needs " + std::to_string(end) +
                          " positions, but the model was trained for " +
                          std::to_string(hparams().trained_context) +
                          "; shorten the prompt, or use --allow-long to go on.");
    }
    if (end > static_cast<std::uint64_t>(context()) &&
        (options.context > 0 || !options.allow_long)) {
        throw usage_error("this needs " + std::to_string(end) + " positions, but the context has " +
                          std::to_string(context()) + "; shorten the prompt or raise -c.");
    }
}

std::unique_ptr<LayerStore> Session::Impl::new_store(int layer) {
    auto store = std::make_unique<LayerStore>(plan.layouts(layer), hparams().kv_heads,
                                              hparams().query_heads, plan.memory, &cache, &policy);
    store->use_side_data(plan.layers[layer].side_data);
    return store;
}

std::size_t Session::Impl::cache_bytes() const {
    std::size_t total = 0;
    for (const SessionLayer& layer : layers) {
        total += layer.store->bytes();
    }
    return total;
}

void Session::Impl::note_bytes() {
    bytes_peak = std::max(bytes_peak, cache_bytes());
}

// FNV-1a over pairs of floats: a byte at a time would cost a few percent of a small model's step.
void Session::Impl::note_logits() {
    for (std::size_t i = 0; i < logits.size(); i += 2) {
        std::uint64_t word = std::bit_cast<std::uint32_t>(logits[i]);
        if (i + 1 < logits.size()) {
            word |= static_cast<std::uint64_t>(std::bit_cast<std::uint32_t>(logits[i + 1])) << 32;
        }
        hash = (hash ^ word) * 0x100000001B3ULL;
    }
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Session::Session(std::shared_ptr<const Model> model, const CacheOptions& cache,
                 const SessionOptions& options)
    : impl_(std::make_unique<Impl>()) {
    if (options.batch < 1 || options.context < 0) {
        throw usage_error("the batch must be at least 1 and the context at least 0; they are " +
                          std::to_string(options.batch) + " and " +
                          std::to_string(options.context) + ".");
    }
    impl_->model = std::move(model);
    impl_->options = options;
    impl_->plan = make_plan(cache, impl_->hparams(), impl_->m().rope);
    use_codebook(impl_->plan, *impl_->model);
    use_profile(impl_->plan, impl_->hparams(), [this] { return impl_->model->sha256(); });
    impl_->layers.resize(impl_->hparams().layers);
    for (int layer = 0; layer < impl_->hparams().layers; ++layer) {
        impl_->layers[layer].store = impl_->new_store(layer);
    }
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

void Session::prefill(std::span<const std::int32_t> tokens, const ProgressCallback& progress) {
    Impl* self = impl_.get();
    winnow::prefill(std::span(&self, 1), tokens, progress);
}

void Session::prefill(std::span<Session* const> sessions, std::span<const std::int32_t> tokens,
                      const ProgressCallback& progress) {
    std::vector<Impl*> impls;
    for (Session* session : sessions) {
        impls.push_back(session->impl_.get());
    }
    winnow::prefill(impls, tokens, progress);
}

void Session::pin(int first, int last) {
    if (first < 0 || first >= last) {
        throw usage_error("pinned positions must be a range such as 0 to 10; they are " +
                          std::to_string(first) + " to " + std::to_string(last) + ".");
    }
    const Pins before = impl_->pins;
    impl_->pins.add(first, last);
    try {
        if (impl_->position > 0) {
            check_pins(*impl_, 0);
        }
    } catch (const Error&) {
        impl_->pins = before;
        throw;
    }
}

std::span<const float> Session::logits() const {
    return impl_->logits;
}

void Session::decode(std::int32_t token) {
    Impl* self = impl_.get();
    winnow::decode(std::span(&self, 1), std::span(&token, 1));
}

void Session::decode(std::span<Session* const> sessions, std::span<const std::int32_t> tokens) {
    std::vector<Impl*> impls;
    for (Session* session : sessions) {
        impls.push_back(session->impl_.get());
    }
    winnow::decode(impls, tokens);
}

void Session::score(std::span<const std::int32_t> tokens,
                    const std::function<void(int, std::span<const float>)>& sink) {
    winnow::score(*impl_, tokens, sink);
}

Session Session::clone() const {
    CacheOptions options = impl_->plan.options;
    options.kvquant_codebook.clear();  // the plan holds what the files said
    if (!options.profile.empty()) {
        options.profile = "none";
    }
    Session copy(impl_->model, options, impl_->options);
    Impl& to = *copy.impl_;
    to.plan = impl_->plan;  // the stores point at its RoPE table
    for (std::size_t layer = 0; layer < impl_->layers.size(); ++layer) {
        to.layers[layer].store = impl_->layers[layer].store->clone(&to.cache, &to.policy);
        to.layers[layer].budget = impl_->layers[layer].budget;
        to.layers[layer].scores = impl_->layers[layer].scores;
        to.layers[layer].dropped_mass = impl_->layers[layer].dropped_mass;
    }
    to.position = impl_->position;
    to.tokens = impl_->tokens;
    to.budget_tokens = impl_->budget_tokens;
    to.logits = impl_->logits;
    to.hash = impl_->hash;
    to.bytes_peak = impl_->bytes_peak;
    to.prefill_peak = impl_->prefill_peak;
    to.evictions = impl_->evictions;
    to.repackings = impl_->repackings;
    to.demotions = impl_->demotions;
    to.pins = impl_->pins;
    to.timing = impl_->timing;
    return copy;
}

void Session::save(const std::string& path) const {
    save_session(*impl_, path);
}

Session Session::load(std::shared_ptr<const Model> model, const std::string& path,
                      const CacheOptions& cache, const SessionOptions& options) {
    Session session(std::move(model), cache, options);
    load_session(*session.impl_, path);
    return session;
}

std::span<const std::int32_t> Session::tokens() const {
    return impl_->tokens;
}
const std::vector<std::pair<int, int>>& Session::pins() const {
    return impl_->pins.ranges();
}
int Session::position() const {
    return impl_->position;
}
SessionTiming Session::timing() const {
    return impl_->timing;
}
const CacheOptions& Session::options() const {
    return impl_->plan.options;
}
const Model& Session::model() const {
    return *impl_->model;
}

std::string Session::logits_hash() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) {
        text += kDigits[impl_->hash >> shift & 15U];
    }
    return text;
}

}  // namespace winnow
