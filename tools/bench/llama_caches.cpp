#include "bench/llama_caches.h"

#include <algorithm>
#include <cstdlib>

#include "bench/llama_handles.h"
#include "cli/signals.h"

namespace winnow::bench {
namespace {

// llama.cpp turns K and V of packed caches by a Hadamard matrix unless this variable is set.
class RotationOff {
  public:
    explicit RotationOff(bool off) : off_(off) {
        if (off_) setenv(kName, "1", 1);
    }
    ~RotationOff() {
        if (off_) unsetenv(kName);
    }
    RotationOff(const RotationOff&) = delete;
    RotationOff& operator=(const RotationOff&) = delete;

  private:
    static constexpr const char* kName = "LLAMA_ATTN_ROT_DISABLE";
    bool off_;
};

class LlamaCache : public eval::ForeignCache {
  public:
    LlamaCache(std::shared_ptr<llama_model> model, const CacheType& type, bool rotated, int threads)
        : model_(std::move(model)), type_(&type), rotated_(rotated), threads_(threads) {}

    std::string id() const override {
        return std::string("llama.cpp") + (rotated_ ? "-" : ".unrotated-") + type_->name;
    }
    eval::OrderedJson options() const override {
        return {{"method", "full"},
                {"quant_method", rotated_ ? "llama.cpp" : "llama.cpp unrotated"},
                {"nbits", type_->bits},
                {"cache_type", type_->name},
                {"source", WINNOW_RIVAL_SOURCE}};
    }
    double bits() const override { return stored_bits(type_->type); }

    void force(std::span<const std::int32_t> prompt, std::span<const std::int32_t> forced,
               const std::function<void(int, std::span<const float>)>& sink) const override {
        const LlamaContext context = make_context(prompt.size() + forced.size());
        int position = 0;
        read(*context, prompt, position, nullptr);
        read(*context, forced.first(forced.size() - 1), position, &sink);
    }

  private:
    using Sink = std::function<void(int, std::span<const float>)>;

    LlamaContext make_context(std::size_t positions) const {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = static_cast<std::uint32_t>(positions);
        params.n_batch = params.n_ubatch = kLlamaMicroBatch;
        params.n_threads = params.n_threads_batch = threads_;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.type_k = params.type_v = type_->type;
        params.abort_callback = [](void*) { return cli::interrupted(); };
        const RotationOff off(!rotated_);
        LlamaContext context(llama_init_from_model(model_.get(), params));
        if (context == nullptr) {
            throw failure("llama.cpp cannot make a " + std::string(type_->name) + " cache of " +
                          std::to_string(positions) + " positions for this model.");
        }
        return context;
    }

    // Reads tokens in chunks; with a sink, the logits after each.
    static void read(llama_context& context, std::span<const std::int32_t> tokens, int& position,
                     const Sink* sink) {
        const std::size_t vocabulary = static_cast<std::size_t>(
            llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(&context))));
        LlamaBatch batch(kLlamaMicroBatch);
        for (std::size_t first = 0; first < tokens.size(); first += kLlamaMicroBatch) {
            const std::size_t count =
                std::min<std::size_t>(kLlamaMicroBatch, tokens.size() - first);
            batch.clear();
            for (std::size_t i = 0; i < count; ++i) {
                batch.add(tokens[first + i], position++, 0, sink != nullptr);
            }
            const int result = llama_decode(&context, batch.get());
            cli::throw_if_interrupted();
            if (result != 0) {
                throw failure("llama.cpp could not read a chunk of " + std::to_string(count) +
                              " tokens: its result was " + std::to_string(result) + ".");
            }
            for (std::size_t i = 0; sink != nullptr && i < count; ++i) {
                const float* logits = llama_get_logits_ith(&context, static_cast<int>(i));
                (*sink)(static_cast<int>(first + i), {logits, vocabulary});
            }
        }
    }

    std::shared_ptr<llama_model> model_;
    const CacheType* type_;
    bool rotated_;
    int threads_;
};

}  // namespace

eval::ForeignCaches load_llama_caches(const Model& model) {
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    const std::string& path = model.info().path;
    const std::shared_ptr<llama_model> loaded(llama_model_load_from_file(path.c_str(), params),
                                              FreeModel());
    if (loaded == nullptr) throw failure("llama.cpp cannot load " + path + ".");
    eval::ForeignCaches caches;
    for (const CacheType& type : kCacheTypes) {
        caches.push_back(std::make_shared<LlamaCache>(loaded, type, true, model.threads()));
        if (type.type != GGML_TYPE_F16) {
            caches.push_back(std::make_shared<LlamaCache>(loaded, type, false, model.threads()));
        }
    }
    return caches;
}

}  // namespace winnow::bench
