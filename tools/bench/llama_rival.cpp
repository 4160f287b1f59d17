#include <algorithm>
#include <string>

#include "bench/llama_handles.h"
#include "bench/rival.h"
#include "cli/signals.h"

namespace winnow::bench {
namespace {

class LlamaEngine : public Engine {
  public:
    LlamaEngine(LlamaContext context, int sessions, double bytes_per_token)
        : context_(std::move(context)),
          memory_(llama_get_memory(context_.get())),
          batch_(std::max(kLlamaBatch, sessions)),
          bytes_per_token_(bytes_per_token) {}

    void reset() override {
        llama_memory_clear(memory_, false);
        prompt_ = 0;
        filled_ = 1;
    }

    void prefill(std::span<const std::int32_t> prompt) override {
        const int total = static_cast<int>(prompt.size());
        while (prompt_ < total) {
            batch_.clear();
            const int end = std::min(total, prompt_ + kLlamaBatch);
            for (; prompt_ < end; ++prompt_) {
                batch_.add(prompt[prompt_], prompt_, 0, prompt_ + 1 == total);
            }
            decode();
        }
    }

    void rewind(int sessions) override {
        for (int s = 0; s < filled_; ++s) {
            if (!llama_memory_seq_rm(memory_, s, prompt_, -1)) {
                throw failure(
                    "llama.cpp cannot take decoded tokens back out of this model's "
                    "cache, which the bench needs.");
            }
        }
        for (; filled_ < sessions; ++filled_) llama_memory_seq_cp(memory_, 0, filled_, -1, -1);
        position_ = prompt_;
    }

    void step(std::span<const std::int32_t> tokens) override {
        batch_.clear();
        for (std::size_t s = 0; s < tokens.size(); ++s) {
            batch_.add(tokens[s], position_, static_cast<int>(s), true);
        }
        ++position_;
        decode();
    }

    std::uint64_t kv_bytes() const override {
        return static_cast<std::uint64_t>(prompt_ * bytes_per_token_);
    }

  private:
    void decode() {
        cli::throw_if_interrupted();
        const int result = llama_decode(context_.get(), batch_.get());
        cli::throw_if_interrupted();
        if (result != 0) {
            throw failure("llama.cpp could not decode a batch of " +
                          std::to_string(batch_.get().n_tokens) + " tokens: its result was " +
                          std::to_string(result) + ".");
        }
        llama_synchronize(context_.get());
    }

    LlamaContext context_;
    llama_memory_t memory_;
    LlamaBatch batch_;
    double bytes_per_token_;
    int prompt_ = 0;    // tokens of the prompt
    int position_ = 0;  // of the next decoded token
    int filled_ = 1;    // sequences that hold the prompt
};

class LlamaRival : public Rival {
  public:
    explicit LlamaRival(const Model& model) : shape_(model.info()), threads_(model.threads()) {
        llama_model_params params = llama_model_default_params();
        params.n_gpu_layers = 0;
        model_.reset(llama_model_load_from_file(shape_.path.c_str(), params));
        if (model_ == nullptr) throw failure("llama.cpp cannot load " + shape_.path + ".");
        info_.name = "llama.cpp";
        info_.version = std::string(WINNOW_RIVAL_SOURCE) + ", ggml " + ggml_version();
        info_.flags = "-fa on -t " + std::to_string(threads_) + " -b " +
                      std::to_string(kLlamaBatch) + " -ub " + std::to_string(kLlamaMicroBatch) +
                      " -ngl 0";
        info_.system = llama_print_system_info();
    }

    const RivalInfo& info() const override { return info_; }

    std::unique_ptr<Engine> engine(const std::string& cache_type, int positions,
                                   int sessions) const override {
        const CacheType& type = cache_type_of(cache_type);
        llama_context_params params = llama_context_default_params();
        params.n_ctx = static_cast<std::uint32_t>(positions) * sessions;
        params.n_batch = kLlamaBatch;
        params.n_ubatch = kLlamaMicroBatch;
        params.n_seq_max = static_cast<std::uint32_t>(sessions);
        params.kv_unified = false;
        params.n_threads = params.n_threads_batch = threads_;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.type_k = params.type_v = type.type;
        params.abort_callback = [](void*) { return cli::interrupted(); };
        LlamaContext context(llama_init_from_model(model_.get(), params));
        if (context == nullptr) {
            throw failure("llama.cpp cannot make a " + cache_type + " cache of " +
                          std::to_string(params.n_ctx) + " positions for " + shape_.path + ".");
        }
        const double numbers = 2.0 * shape_.layers * shape_.kv_heads * shape_.head_dim;
        return std::make_unique<LlamaEngine>(std::move(context), sessions,
                                             numbers * stored_bits(type.type) / 8.0);
    }

  private:
    ModelInfo shape_;
    int threads_;
    LlamaModel model_;
    RivalInfo info_;
};

}  // namespace

const std::vector<std::string>& rival_cache_types() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> list;
        for (const CacheType& type : kCacheTypes) list.emplace_back(type.name);
        return list;
    }();
    return names;
}

int rival_bits(const std::string& cache_type) {
    return cache_type_of(cache_type).bits;
}

std::unique_ptr<Rival> load_llama_rival(const Model& model) {
    return std::make_unique<LlamaRival>(model);
}

}  // namespace winnow::bench
