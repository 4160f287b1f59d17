#include "support/tiny_gguf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <numbers>
#include <stdexcept>
#include <vector>

#include "gguf.h"

namespace winnow::testing {

namespace {

constexpr std::array kSpecials = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
constexpr int kEndOfText = 256;  // the specials follow the 256 bytes
constexpr int kEndOfTurn = 258;
constexpr int kNormalToken = 1;
constexpr int kControlToken = 3;
constexpr int kUnusedToken = 5;

constexpr const char* kChatMl =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// Merges in rank order; their results are tokens after the specials.
constexpr std::array<std::array<const char*, 2>, 6> kMerges = {
    {{"t", "h"}, {"th", "e"}, {"i", "n"}, {"a", "n"}, {"an", "d"}, {"e", "r"}}};

constexpr int kBpeTokens = 256 + static_cast<int>(kSpecials.size() + kMerges.size());

/// Normal numbers that are the same on every platform, unlike std::normal_distribution.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    float normal() {
        const double radius = std::sqrt(-2.0 * std::log(uniform()));
        return static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * uniform()));
    }

  private:
    /// In (0, 1], by splitmix64.
    double uniform() {
        state_ += 0x9e3779b97f4a7c15ULL;
        std::uint64_t z = state_;
        z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
        z ^= z >> 31U;
        return (static_cast<double>(z >> 11U) + 1.0) * 0x1.0p-53;
    }

    std::uint64_t state_;
};

/// The visible character that GPT-2's vocabulary writes for a byte, in UTF-8.
std::string byte_text(int byte) {
    const auto is_plain = [](int b) {
        return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    };
    int code = byte;
    if (!is_plain(byte)) {
        code = 256;
        for (int b = 0; b < byte; ++b) code += is_plain(b) ? 0 : 1;
    }
    if (code < 0x80) return {static_cast<char>(code)};
    return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

class Writer {
  public:
    explicit Writer(const TinyModelOptions& options)
        : o_(options), gguf_(gguf_init_empty(), gguf_free), random_(options.seed) {}

    void write(const std::string& path);

  private:
    std::string key(const char* name) const { return o_.architecture + "." + name; }
    void set(const char* name, int value) {
        gguf_set_val_u32(gguf_.get(), key(name).c_str(), static_cast<std::uint32_t>(value));
    }
    void set(const char* name, float value) {
        gguf_set_val_f32(gguf_.get(), key(name).c_str(), value);
    }
    void set(const char* name, const char* value) {
        gguf_set_val_str(gguf_.get(), key(name).c_str(), value);
    }

    void check() const;
    void set_hyperparameters();
    void set_rope_scaling();
    void set_tokenizer();
    void add_tensor(const std::string& name, ggml_type type, int rows, const std::vector<float>& x,
                    int experts = 1);
    void add_matrix(const std::string& name, int in, int out, float gain, int experts = 1);
    void add_vector(const std::string& name, int size, float mean, float spread);
    void add_key_bias(const std::string& name);
    void add_rope_divisors();
    void add_layer(int layer);

    const TinyModelOptions& o_;
    std::unique_ptr<gguf_context, void (*)(gguf_context*)> gguf_;
    std::vector<std::vector<std::uint8_t>> data_;  // lives until the file is written
    Random random_;
};

void Writer::check() const {
    const auto fail = [](const std::string& what) {
        throw std::runtime_error("tiny gguf: " + what);
    };
    if (o_.architecture.empty()) fail("no architecture");
    if (std::min({o_.layers, o_.query_heads, o_.kv_heads, o_.head_dim, o_.embed, o_.ff, o_.vocab,
                  o_.context}) < 1) {
        fail("every size must be 1 or more");
    }
    if (o_.query_heads % o_.kv_heads != 0) fail("kv_heads must divide query_heads");
    if (o_.head_dim % 2 != 0 || o_.rope_dims % 2 != 0) fail("head_dim and rope_dims must be even");
    const auto block = static_cast<int>(ggml_blck_size(o_.type));
    for (const int row : {o_.embed, o_.ff, o_.query_heads * o_.head_dim}) {
        if (block == 0 || row % block != 0) {
            fail("rows of " + std::to_string(row) + " do not fit type " + ggml_type_name(o_.type));
        }
    }
}

void Writer::set_hyperparameters() {
    gguf_set_val_str(gguf_.get(), "general.architecture", o_.architecture.c_str());
    gguf_set_val_str(gguf_.get(), "general.type", "model");
    gguf_set_val_str(gguf_.get(), "general.name", "tiny random model");
    set("block_count", o_.layers);
    set("context_length", o_.context);
    set("embedding_length", o_.embed);
    set("feed_forward_length", o_.ff);
    set("attention.head_count", o_.query_heads);
    set("attention.head_count_kv", o_.kv_heads);
    set("attention.key_length", o_.head_dim);
    set("attention.value_length", o_.head_dim);
    set("attention.layer_norm_rms_epsilon", o_.rms_eps);
    set("rope.freq_base", o_.freq_base);
    set("rope.dimension_count", o_.rope_dims > 0 ? o_.rope_dims : o_.head_dim);
    set("vocab_size", tiny_vocab_size(o_));
    if (o_.experts > 0) {
        set("expert_count", o_.experts);
        set("expert_used_count", 2);
    }
    if (o_.sliding_window > 0) set("attention.sliding_window", o_.sliding_window);
}

void Writer::set_rope_scaling() {
    if (o_.rope == TinyRope::linear) {
        set("rope.scaling.type", "linear");
        set("rope.scaling.factor", o_.rope_factor);
    } else if (o_.rope == TinyRope::yarn) {
        set("rope.scaling.type", "yarn");
        set("rope.scaling.factor", o_.rope_factor);
        set("rope.scaling.original_context_length",
            static_cast<int>(static_cast<float>(o_.context) / o_.rope_factor));
        set("rope.scaling.attn_factor", 1.0F);
        set("rope.scaling.yarn_ext_factor", 1.0F);
        set("rope.scaling.yarn_attn_factor", 1.0F);
        set("rope.scaling.yarn_beta_fast", 32.0F);
        set("rope.scaling.yarn_beta_slow", 1.0F);
    }
}

void Writer::set_tokenizer() {
    if (o_.tokenizer == TinyTokenizer::none) {
        gguf_set_val_str(gguf_.get(), "tokenizer.ggml.model", "none");
        return;
    }
    std::vector<std::string> tokens;
    std::vector<std::int32_t> types;
    const auto add = [&](const std::string& text, int type) {
        tokens.push_back(text);
        types.push_back(type);
    };
    for (int byte = 0; byte < 256; ++byte) add(byte_text(byte), kNormalToken);
    for (const char* special : kSpecials) add(special, kControlToken);
    std::vector<std::string> merges;
    for (const auto& [left, right] : kMerges) {
        add(std::string(left) + right, kNormalToken);
        merges.push_back(std::string(left) + " " + right);
    }
    while (static_cast<int>(tokens.size()) < o_.vocab) {
        add("<|unused_" + std::to_string(tokens.size()) + "|>", kUnusedToken);
    }
    const auto set_strings = [&](const char* name, const std::vector<std::string>& texts) {
        std::vector<const char*> pointers;
        for (const std::string& text : texts) pointers.push_back(text.c_str());
        gguf_set_arr_str(gguf_.get(), name, pointers.data(), pointers.size());
    };
    gguf_set_val_str(gguf_.get(), "tokenizer.ggml.model", "gpt2");
    gguf_set_val_str(gguf_.get(), "tokenizer.ggml.pre", "gpt-2");
    set_strings("tokenizer.ggml.tokens", tokens);
    gguf_set_arr_data(gguf_.get(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(),
                      types.size());
    set_strings("tokenizer.ggml.merges", merges);
    gguf_set_val_u32(gguf_.get(), "tokenizer.ggml.bos_token_id", kEndOfText);
    gguf_set_val_u32(gguf_.get(), "tokenizer.ggml.eos_token_id", kEndOfTurn);
    gguf_set_val_bool(gguf_.get(), "tokenizer.ggml.add_bos_token", false);
    gguf_set_val_str(gguf_.get(), "tokenizer.chat_template", kChatMl);
}

/// x is [rows][x.size() / rows], rows those of all experts.
void Writer::add_tensor(const std::string& name, ggml_type type, int rows,
                        const std::vector<float>& x, int experts) {
    const auto row = static_cast<std::int64_t>(x.size()) / rows;
    auto& bytes = data_.emplace_back(ggml_row_size(type, row) * static_cast<std::size_t>(rows));
    if (type == GGML_TYPE_F32) {
        std::memcpy(bytes.data(), x.data(), bytes.size());
    } else {
        ggml_quantize_chunk(type, x.data(), bytes.data(), 0, rows, row, nullptr);
    }
    const ggml_init_params params{ggml_tensor_overhead(), nullptr, true};
    const std::unique_ptr<ggml_context, void (*)(ggml_context*)> context(ggml_init(params),
                                                                         ggml_free);
    ggml_tensor* tensor =
        rows == 1 ? ggml_new_tensor_1d(context.get(), type, row)
                  : ggml_new_tensor_3d(context.get(), type, row, rows / experts, experts);
    ggml_set_name(tensor, name.c_str());
    tensor->data = bytes.data();
    gguf_add_tensor(gguf_.get(), tensor);  // copies the tensor's header, not its data
}

/// Weights of variance gain^2 / in, so that a row of unit variance gives outputs of size gain.
void Writer::add_matrix(const std::string& name, int in, int out, float gain, int experts) {
    const int rows = out * experts;
    std::vector<float> x(static_cast<std::size_t>(in) * static_cast<std::size_t>(rows));
    const float spread = gain / std::sqrt(static_cast<float>(in));
    for (float& value : x) value = spread * random_.normal();
    add_tensor(name, o_.type, rows, x, experts);
}

void Writer::add_vector(const std::string& name, int size, float mean, float spread) {
    std::vector<float> x(static_cast<std::size_t>(size));
    for (float& value : x) value = mean + spread * random_.normal();
    add_tensor(name, GGML_TYPE_F32, 1, x);
}

// As in Qwen2.5: two channels of each kv head carry a large offset. They belong to the pairs that
// RoPE turns slowest, so they stay nearly constant over the tokens.
void Writer::add_key_bias(const std::string& name) {
    const int dim = o_.head_dim;
    const int rope = o_.rope_dims > 0 ? o_.rope_dims : dim;
    std::vector<float> x(static_cast<std::size_t>(o_.kv_heads * dim));
    for (float& value : x) value = 0.1F * random_.normal();
    const bool halves = o_.architecture == "qwen2";  // pairs (i, i + rope/2), else (2i, 2i + 1)
    for (int head = 0; head < o_.kv_heads; ++head) {
        for (int pair = std::max(0, rope / 2 - 2); pair < rope / 2; ++pair) {
            const float sign = random_.normal() < 0 ? -1.0F : 1.0F;
            const int channel = halves ? pair : 2 * pair;
            x[static_cast<std::size_t>(head * dim + channel)] += sign * o_.key_bias_scale;
        }
    }
    add_tensor(name, GGML_TYPE_F32, 1, x);
}

// The divisors of Llama 3: slow pairs are divided by the factor, fast ones kept, a ramp between.
void Writer::add_rope_divisors() {
    const int rope = o_.rope_dims > 0 ? o_.rope_dims : o_.head_dim;
    const float old_context = static_cast<float>(o_.context) / o_.rope_factor;
    constexpr float kLow = 1.0F;   // turns over the old context below which a pair is slow
    constexpr float kHigh = 4.0F;  // and above which it is fast
    std::vector<float> x(static_cast<std::size_t>(rope / 2));
    for (int i = 0; i < rope / 2; ++i) {
        const float exponent = 2.0F * static_cast<float>(i) / static_cast<float>(rope);
        const float angle = std::pow(o_.freq_base, -exponent);
        const float turns = old_context * angle / (2.0F * std::numbers::pi_v<float>);
        const float kept = std::clamp((turns - kLow) / (kHigh - kLow), 0.0F, 1.0F);
        x[static_cast<std::size_t>(i)] = 1.0F / (kept + (1.0F - kept) / o_.rope_factor);
    }
    add_tensor("rope_freqs.weight", GGML_TYPE_F32, 1, x);
}

void Writer::add_layer(int layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const int queries = o_.query_heads * o_.head_dim;
    const int keys = o_.kv_heads * o_.head_dim;
    add_vector(prefix + "attn_norm.weight", o_.embed, 1.0F, 0.1F);
    add_matrix(prefix + "attn_q.weight", o_.embed, queries, o_.attention_scale);
    add_matrix(prefix + "attn_k.weight", o_.embed, keys, 1.0F);
    add_matrix(prefix + "attn_v.weight", o_.embed, keys, 1.0F);
    if (o_.qkv_bias || o_.architecture == "qwen2") {
        add_vector(prefix + "attn_q.bias", queries, 0.0F, 0.1F);
        add_key_bias(prefix + "attn_k.bias");
        add_vector(prefix + "attn_v.bias", keys, 0.0F, 0.1F);
    }
    add_matrix(prefix + "attn_output.weight", queries, o_.embed, 1.0F);
    add_vector(prefix + "ffn_norm.weight", o_.embed, 1.0F, 0.1F);
    const int experts = std::max(o_.experts, 1);
    const std::string suffix = o_.experts > 0 ? "_exps.weight" : ".weight";
    if (o_.experts > 0) add_matrix(prefix + "ffn_gate_inp.weight", o_.embed, experts, 1.0F);
    add_matrix(prefix + "ffn_gate" + suffix, o_.embed, o_.ff, 1.0F, experts);
    add_matrix(prefix + "ffn_up" + suffix, o_.embed, o_.ff, 1.0F, experts);
    add_matrix(prefix + "ffn_down" + suffix, o_.ff, o_.embed, 1.0F, experts);
}

void Writer::write(const std::string& path) {
    check();
    set_hyperparameters();
    set_rope_scaling();
    set_tokenizer();
    const int vocab = tiny_vocab_size(o_);
    // Unit variance for the residual stream: a gain of sqrt(E) undoes add_matrix's 1/sqrt(in). A
    // tied matrix keeps its small variance, or the logits would be sqrt(E) times too large.
    const float embed_gain = o_.tied_embeddings ? 1.0F : std::sqrt(static_cast<float>(o_.embed));
    add_matrix("token_embd.weight", o_.embed, vocab, embed_gain);
    for (int layer = 0; layer < o_.layers; ++layer) add_layer(layer);
    add_vector("output_norm.weight", o_.embed, 1.0F, 0.1F);
    if (!o_.tied_embeddings) add_matrix("output.weight", o_.embed, vocab, 2.0F);
    if (o_.rope == TinyRope::llama3) add_rope_divisors();
    if (!gguf_write_to_file(gguf_.get(), path.c_str(), false)) {
        throw std::runtime_error("tiny gguf: '" + path + "' cannot be written");
    }
}

}  // namespace

int tiny_vocab_size(const TinyModelOptions& options) {
    return options.tokenizer == TinyTokenizer::none ? options.vocab
                                                    : std::max(options.vocab, kBpeTokens);
}

void write_tiny_gguf(const std::string& path, const TinyModelOptions& options) {
    Writer(options).write(path);
}

}  // namespace winnow::testing
