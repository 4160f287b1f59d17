#include "model/read_hparams.h"

#include <algorithm>

namespace winnow {

namespace {

// Upper bounds that no real model reaches; beyond them a file is damaged.
constexpr std::uint32_t kMaxLayers = 1024;
constexpr std::uint32_t kMaxHeads = 1024;
constexpr std::uint32_t kMaxWidth = 1U << 20;
constexpr std::uint32_t kMaxContext = 1U << 28;
constexpr std::uint32_t kMaxHeadDim = 512;

class Keys {
  public:
    Keys(const gguf::File& file, const Arch& arch) : file_(file), prefix_(arch.name) {
        prefix_ += '.';
    }

    std::string name(const char* key) const { return prefix_ + key; }
    bool has(const char* key) const { return file_.has(name(key)); }
    int count(const char* key, std::uint32_t most) const {
        return checked(key, file_.require_u32(name(key)), most);
    }
    int count(const char* key, std::uint32_t most, std::uint32_t fallback) const {
        return checked(key, file_.get_u32(name(key), fallback), most);
    }
    float real(const char* key, float fallback) const { return file_.get_f32(name(key), fallback); }
    /// A number per layer that must be the same in all of them.
    int even(const char* key, int layers, std::optional<std::uint32_t> fallback = {}) const {
        const std::vector<std::uint32_t> values =
            file_.per_layer_u32(name(key), static_cast<std::uint32_t>(layers), fallback);
        if (std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) !=
            values.end()) {
            throw file_.error("key '" + name(key) +
                              "' differs from layer to layer; winnow needs one value for all.");
        }
        return checked(key, values.empty() ? 0 : values.front(), kMaxWidth);
    }

  private:
    int checked(const char* key, std::uint32_t value, std::uint32_t most) const {
        if (value == 0 || value > most) {
            throw file_.error("key '" + name(key) + "' is " + std::to_string(value) +
                              "; it must be from 1 to " + std::to_string(most) + ".");
        }
        return static_cast<int>(value);
    }

    const gguf::File& file_;
    std::string prefix_;
};

void refuse_uncomputed(const gguf::File& file, const Keys& keys) {
    if (file.get_u32(keys.name("expert_count"), 0) > 0) {
        throw file.error("this is a mixture of experts (" + keys.name("expert_count") + " = " +
                         std::to_string(file.get_u32(keys.name("expert_count"), 0)) +
                         "); winnow runs dense models only.");
    }
    if (file.get_u32(keys.name("attention.sliding_window"), 0) > 0) {
        throw file.error("this model attends through a sliding window (" +
                         keys.name("attention.sliding_window") + " = " +
                         std::to_string(file.get_u32(keys.name("attention.sliding_window"), 0)) +
                         "); winnow runs models with full attention only.");
    }
    for (const gguf::TensorEntry& tensor : file.tensors()) {
        if (tensor.name.find("attn_qkv") != std::string::npos || tensor.name.ends_with(".scale")) {
            throw file.error("tensor '" + tensor.name +
                             "' (fused projections or scaled weights) is not supported; convert "
                             "the model again with llama.cpp's converter.");
        }
    }
}

int read_vocabulary(const gguf::File& file, const Keys& keys) {
    const gguf::TensorEntry& embedding = file.require_tensor("token_embd.weight");
    const std::uint64_t rows = embedding.dims[1];
    const std::uint64_t tokens = file.array_size("tokenizer.ggml.tokens");
    const std::uint64_t expected =
        tokens > 0 ? tokens
                   : file.get_u32(keys.name("vocab_size"), static_cast<std::uint32_t>(rows));
    if (rows != expected || rows == 0 || rows > (1U << 22)) {
        throw file.error("tensor 'token_embd.weight' has " + std::to_string(rows) +
                         " rows, but the vocabulary has " + std::to_string(expected) + " tokens.");
    }
    return static_cast<int>(rows);
}

// The meaning of the keys follows llama.cpp, so that one file means the same in both.
RopeParams read_rope(const gguf::File& file, const Keys& keys, const Arch& arch,
                     const Hparams& shape) {
    RopeParams rope;
    rope.halves = arch.rope_halves;
    rope.dims =
        keys.count("rope.dimension_count", kMaxHeadDim, static_cast<std::uint32_t>(shape.head_dim));
    if (rope.dims != shape.head_dim) {
        throw file.error("key '" + keys.name("rope.dimension_count") + "' is " +
                         std::to_string(rope.dims) + ", but heads have " +
                         std::to_string(shape.head_dim) +
                         " channels; this architecture rotates all of them.");
    }
    rope.original_context = keys.count("rope.scaling.original_context_length", kMaxContext,
                                       static_cast<std::uint32_t>(shape.trained_context));
    rope.freq_base = keys.real("rope.freq_base", 10000.0F);
    const std::string type = file.get_string(keys.name("rope.scaling.type"), "linear");
    if (type != "none" && type != "linear" && type != "yarn") {
        throw file.error("key '" + keys.name("rope.scaling.type") + "' is '" + type +
                         "'; winnow knows none, linear and yarn (and llama 3 factors).");
    }
    const float factor = keys.real("rope.scaling.factor", keys.real("rope.scale_linear", 0.0F));
    if (rope.freq_base <= 0.0F || factor < 0.0F) {
        throw file.error("the rope frequency base and scaling factor must be positive.");
    }
    rope.freq_scale = factor == 0.0F || type == "none" ? 1.0F : 1.0F / factor;
    // For these architectures llama.cpp reads no other YaRN key, so neither do we.
    rope.ext_factor = type == "yarn" ? 1.0F : 0.0F;
    rope.attn_factor = keys.real("rope.scaling.attn_factor", 1.0F);
    if (const gguf::TensorEntry* factors = file.find_tensor("rope_freqs.weight")) {
        if (factors->type != 0 || factors->dims[0] != static_cast<std::uint64_t>(rope.dims / 2)) {
            throw file.error("tensor 'rope_freqs.weight' must hold " +
                             std::to_string(rope.dims / 2) + " f32 factors.");
        }
        const std::span<const std::byte> data = file.tensor_data(*factors);
        rope.factors.resize(static_cast<std::size_t>(rope.dims / 2));
        std::copy_n(data.begin(), rope.factors.size() * sizeof(float),
                    reinterpret_cast<std::byte*>(rope.factors.data()));
    }
    return rope;
}

}  // namespace

Hparams read_hparams(const gguf::File& file, const Arch& arch) {
    const Keys keys(file, arch);
    refuse_uncomputed(file, keys);
    Hparams h;
    h.layers = keys.count("block_count", kMaxLayers);
    h.embedding = keys.count("embedding_length", kMaxWidth);
    h.trained_context = keys.count("context_length", kMaxContext);
    h.query_heads = keys.even("attention.head_count", h.layers);
    h.kv_heads =
        keys.even("attention.head_count_kv", h.layers, static_cast<std::uint32_t>(h.query_heads));
    h.feed_forward = keys.even("feed_forward_length", h.layers);
    h.vocabulary = read_vocabulary(file, keys);
    h.rms_eps = file.require_f32(keys.name("attention.layer_norm_rms_epsilon"));
    if (h.query_heads > static_cast<int>(kMaxHeads) || h.query_heads % h.kv_heads != 0) {
        throw file.error("the model has " + std::to_string(h.query_heads) + " query heads and " +
                         std::to_string(h.kv_heads) +
                         " kv heads; the first must be a multiple of the second.");
    }
    h.head_dim = keys.count("attention.key_length", kMaxHeadDim,
                            static_cast<std::uint32_t>(h.embedding / h.query_heads));
    const int value_dim =
        keys.count("attention.value_length", kMaxHeadDim, static_cast<std::uint32_t>(h.head_dim));
    if (value_dim != h.head_dim || h.head_dim % 8 != 0) {
        throw file.error("heads have " + std::to_string(h.head_dim) + " key and " +
                         std::to_string(value_dim) +
                         " value channels; winnow needs the same number, a multiple of 8.");
    }
    h.rope = read_rope(file, keys, arch, h);
    if (arch.check != nullptr) {
        arch.check(file);
    }
    return h;
}

}  // namespace winnow
