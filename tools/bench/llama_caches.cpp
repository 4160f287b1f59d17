#include "bench/llama_caches.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

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

// How a prompt gets into a packed cache.
struct Way {
    bool rotated;      // as llama.cpp does by default
    bool prompt_only;  // packed once it was read at 16 bits; the forced tokens stay f16, as ours do
};

// A prompt as the f16 cache holds it, kept for the ways that pack nothing else.
struct PromptState {
    std::vector<std::int32_t> prompt;
    std::vector<std::uint8_t> bytes;
};

// The transform by Walsh and Hadamard, orthonormal, of n = 2^k numbers.
void rotate(float* x, int n) {
    for (int half = 1; half < n; half *= 2) {
        for (int i = 0; i < n; i += 2 * half) {
            for (int j = i; j < i + half; ++j) {
                const float low = x[j], high = x[j + half];
                x[j] = low + high;
                x[j + half] = low - high;
            }
        }
    }
    for (int i = 0; i < n; ++i) x[i] /= std::sqrt(static_cast<float>(n));
}

// A sequence's f16 state with its rows as `type` restores them, f16 again: a header, then for each
// layer's K, later each layer's V: the type, the bytes of a row, and the rows.
std::vector<std::uint8_t> restored(const PromptState& state, ggml_type type, bool rotated,
                                   const ModelInfo& shape) {
    const int numbers = shape.kv_heads * shape.head_dim;
    const std::size_t cells = state.prompt.size(), parts = 2U * shape.layers;
    const std::size_t row = sizeof(ggml_fp16_t) * numbers;
    const std::size_t mark = sizeof(std::int32_t) + sizeof(std::uint64_t);
    std::vector<std::uint8_t> out = state.bytes;
    std::uint8_t* at = out.data() + out.size() - parts * (mark + cells * row);
    std::vector<float> values(numbers);
    std::vector<std::uint8_t> codes(ggml_row_size(type, numbers));
    const ggml_to_float_t to_float = ggml_get_type_traits(type)->to_float;
    for (std::size_t part = 0; part < parts; ++part) {
        int block = rotated ? 64 : 1;  // V's; K's is the largest that divides a head
        while (rotated && part < parts / 2 && shape.head_dim % (2 * block) == 0) block *= 2;
        at += mark;
        for (std::size_t cell = 0; cell < cells; ++cell, at += row) {
            auto* numbers16 = reinterpret_cast<ggml_fp16_t*>(at);
            ggml_fp16_to_fp32_row(numbers16, values.data(), numbers);
            for (int i = 0; i < numbers; i += block) rotate(values.data() + i, block);
            ggml_quantize_chunk(type, values.data(), codes.data(), 0, 1, numbers, nullptr);
            to_float(codes.data(), values.data(), numbers);
            for (int i = 0; i < numbers; i += block) rotate(values.data() + i, block);
            ggml_fp32_to_fp16_row(values.data(), numbers16, numbers);
        }
    }
    return out;
}

class LlamaCache : public eval::ForeignCache {
  public:
    LlamaCache(std::shared_ptr<llama_model> model, const Model& ours, const CacheType& type,
               Way way, std::shared_ptr<PromptState> state)
        : model_(std::move(model)),
          shape_(ours.info()),
          threads_(ours.threads()),
          type_(&type),
          way_(way),
          state_(std::move(state)) {}

    std::string id() const override { return named(".") + "-" + type_->name; }
    eval::OrderedJson options() const override {
        return {{"method", "full"},
                {"quant_method", named(" ")},
                {"nbits", type_->bits},
                {"cache_type", type_->name},
                {"source", WINNOW_RIVAL_SOURCE}};
    }
    double bits() const override { return stored_bits(type_->type); }

    void force(std::span<const std::int32_t> prompt, std::span<const std::int32_t> forced,
               const std::function<void(int, std::span<const float>)>& sink) const override {
        const LlamaContext context = make_context(prompt.size() + forced.size());
        int position = 0;
        if (way_.prompt_only) {
            take_state(*context, prompt);
            position = static_cast<int>(prompt.size());
        } else {
            read(*context, prompt, position, nullptr);
        }
        if (type_->type == GGML_TYPE_F16) {
            state_->prompt.assign(prompt.begin(), prompt.end());
            state_->bytes.resize(llama_state_seq_get_size(context.get(), 0));
            llama_state_seq_get_data(context.get(), state_->bytes.data(), state_->bytes.size(), 0);
        }
        read(*context, forced.first(forced.size() - 1), position, &sink);
    }

  private:
    using Sink = std::function<void(int, std::span<const float>)>;

    std::string named(const char* joint) const {
        return std::string("llama.cpp") + (way_.prompt_only ? joint + std::string("prompt") : "") +
               (way_.rotated ? "" : joint + std::string("unrotated"));
    }

    void take_state(llama_context& context, std::span<const std::int32_t> prompt) const {
        const bool same =
            std::equal(prompt.begin(), prompt.end(), state_->prompt.begin(), state_->prompt.end());
        const std::vector<std::uint8_t> bytes =
            same ? restored(*state_, type_->type, way_.rotated, shape_)
                 : std::vector<std::uint8_t>();
        if (bytes.empty() ||
            llama_state_seq_set_data(&context, bytes.data(), bytes.size(), 0) == 0) {
            throw failure("llama.cpp did not take a prompt that was packed for its " +
                          std::string(type_->name) + " cache.");
        }
    }

    LlamaContext make_context(std::size_t positions) const {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = static_cast<std::uint32_t>(positions);
        params.n_batch = params.n_ubatch = kLlamaMicroBatch;
        params.n_threads = params.n_threads_batch = threads_;
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.type_k = params.type_v = way_.prompt_only ? GGML_TYPE_F16 : type_->type;
        params.abort_callback = [](void*) { return cli::interrupted(); };
        const RotationOff off(!way_.rotated);
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
    ModelInfo shape_;
    int threads_;
    const CacheType* type_;
    Way way_;
    std::shared_ptr<PromptState> state_;
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
    const auto state = std::make_shared<PromptState>();
    const auto add = [&](const CacheType& type, Way way) {
        caches.push_back(std::make_shared<LlamaCache>(loaded, model, type, way, state));
    };
    for (const CacheType& type : kCacheTypes) {
        add(type, {.rotated = true, .prompt_only = false});
        for (int i = 1; type.type != GGML_TYPE_F16 && i < 4; ++i) {
            add(type, {.rotated = i % 2 == 0, .prompt_only = i > 1});
        }
    }
    return caches;
}

}  // namespace winnow::bench
