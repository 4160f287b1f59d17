// libllama's model, context and batch as values that free themselves.
#pragma once

#include <ggml.h>
#include <llama.h>
#include <winnow/error.h>

#include <cstdint>
#include <memory>
#include <string>

namespace winnow::bench {

// llama.cpp's own defaults of -b and -ub.
inline constexpr int kLlamaBatch = 2048;
inline constexpr int kLlamaMicroBatch = 512;

/// What llama.cpp stores K and V as.
struct CacheType {
    const char* name;
    ggml_type type;
    int bits;
};
inline constexpr CacheType kCacheTypes[] = {
    {"f16", GGML_TYPE_F16, 16},
    {"q8_0", GGML_TYPE_Q8_0, 8},
    {"q4_0", GGML_TYPE_Q4_0, 4},
};

inline const CacheType& cache_type_of(const std::string& name) {
    for (const CacheType& type : kCacheTypes) {
        if (name == type.name) return type;
    }
    throw usage_error("llama.cpp's cache type is '" + name + "'; it may be f16, q8_0 or q4_0.");
}

/// Bits of a stored number, scales included.
inline double stored_bits(ggml_type type) {
    return 8.0 * static_cast<double>(ggml_type_size(type)) /
           static_cast<double>(ggml_blck_size(type));
}

struct FreeModel {
    void operator()(llama_model* model) const { llama_model_free(model); }
};
struct FreeContext {
    void operator()(llama_context* context) const { llama_free(context); }
};
using LlamaModel = std::unique_ptr<llama_model, FreeModel>;
using LlamaContext = std::unique_ptr<llama_context, FreeContext>;

// A llama_batch that frees itself.
class LlamaBatch {
  public:
    explicit LlamaBatch(int capacity) : batch_(llama_batch_init(capacity, 0, 1)) {}
    ~LlamaBatch() { llama_batch_free(batch_); }
    LlamaBatch(const LlamaBatch&) = delete;
    LlamaBatch& operator=(const LlamaBatch&) = delete;

    void clear() { batch_.n_tokens = 0; }
    void add(std::int32_t token, int position, int sequence, bool logits) {
        const int i = batch_.n_tokens++;
        batch_.token[i] = token;
        batch_.pos[i] = position;
        batch_.n_seq_id[i] = 1;
        batch_.seq_id[i][0] = sequence;
        batch_.logits[i] = logits ? 1 : 0;
    }
    const llama_batch& get() const { return batch_; }

  private:
    llama_batch batch_;
};

}  // namespace winnow::bench
