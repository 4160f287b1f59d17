// Winnow: language models from GGUF files over a key-value cache that is pruned and packed.
//
// Letters used here: L layers, H query heads, G kv heads, D head dimension, E embedding width,
// V vocabulary, T tokens. All errors are winnow::Error. The library never prints or aborts.
//
// Threads: a Model is immutable and may be shared. Calls that compute on one Model (prefill,
// decode, score) take its lock, so they are safe from any thread and run one at a time. A Session
// belongs to one thread at a time.
#pragma once

#include <winnow/error.h>
#include <winnow/options.h>
#include <winnow/sampling.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace winnow {

/// The version of the library, e.g. "0.1.0".
WINNOW_API const char* version();

/// Receives the messages of ggml and llama.cpp; levels are theirs (1 debug .. 4 error).
using LogCallback = std::function<void(int level, const std::string& message)>;
/// Sends those messages to `callback`; they are dropped until it is set. Process-wide, because
/// ggml's own hook is.
WINNOW_API void set_log_callback(LogCallback callback);

struct LoadOptions {
    int threads = 0;  ///< threads of all computation; 0: one per physical core
    /// Where above 0: tokens of a prompt that a session with `cache` will read, and of its answer
    /// (as far as the trained context goes). Throws a failure Error before weights are read where
    /// they and that cache would not fit in free memory.
    int least_tokens = 0;
    int answer_tokens = 0;
    CacheOptions cache{};
};

/// A model's shape, read from the GGUF.
struct ModelInfo {
    std::string path;
    std::string name;          ///< general.name, or the file's stem
    std::string architecture;  ///< general.architecture
    int layers = 0;            ///< L
    int query_heads = 0;       ///< H
    int kv_heads = 0;          ///< G
    int head_dim = 0;          ///< D
    int embedding = 0;         ///< E
    int feed_forward = 0;
    int vocabulary = 0;       ///< V
    int trained_context = 0;  ///< positions the model was trained for
    std::uint64_t weight_bytes = 0;
    std::uint64_t parameters = 0;

    /// Bytes of a full f16 cache of `tokens` tokens: 4 L G D each.
    std::uint64_t full_cache_bytes(std::uint64_t tokens) const {
        return tokens * 4U * layers * kv_heads * head_dim;
    }
};

struct ChatMessage {
    std::string role;  ///< "system", "user" or "assistant"
    std::string content;
};

class WINNOW_API Model {
  public:
    /// Reads a GGUF file. Throws a failure Error that names the file when it is damaged, of an
    /// architecture we do not have, or larger than memory. The file is mapped: it must not be
    /// shortened while the model lives, or the system ends the process by SIGBUS.
    static std::shared_ptr<const Model> load(const std::string& path,
                                             const LoadOptions& options = {});
    ~Model();

    const ModelInfo& info() const;
    int threads() const;
    /// sha256 of the file, 64 hex digits; computed on first use, then remembered beside the cache
    /// directory by size and time.
    const std::string& sha256() const;

    /// Token ids of `text`. `add_special` adds BOS/EOS as the GGUF says; `parse_special` reads
    /// markers such as <|im_start|> as tokens.
    std::vector<std::int32_t> tokenize(std::string_view text, bool add_special,
                                       bool parse_special) const;
    /// Text of one token; bytes, so a character may be split over tokens.
    std::string piece(std::int32_t token, bool special = false) const;
    bool is_end_of_generation(std::int32_t token) const;
    /// The prompt for `messages`, by the GGUF's chat template or by `chat_template`: a built-in
    /// name or Jinja source.
    std::string apply_chat_template(std::span<const ChatMessage> messages,
                                    bool add_generation_prompt = true,
                                    const std::string& chat_template = "") const;
    /// Whether the GGUF brings a chat template.
    bool has_chat_template() const;

    struct Impl;
    const Impl& impl() const { return *impl_; }

  private:
    explicit Model(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Draws tokens from logits. Belongs to one thread at a time; keeps its model alive.
class WINNOW_API Sampler {
  public:
    Sampler(std::shared_ptr<const Model> model, const SamplingOptions& options);
    ~Sampler();
    /// The next token for `logits` [V]; greedy at temp 0. Does not record it.
    std::int32_t sample(std::span<const float> logits);
    /// Records a token (grammar, penalties).
    void accept(std::int32_t token);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Where a long call stands. Return false from the callback to stop: the call throws an Error of
/// kind stopped, and the session is as it was before the call.
struct Progress {
    int layer = 0;  ///< of L
    int layers = 0;
    int tokens = 0;  ///< of this layer's prompt tokens
    int tokens_total = 0;
};
using ProgressCallback = std::function<bool(const Progress&)>;

struct SessionOptions {
    int context = 0;           ///< most positions a session may reach; 0: the trained context
    bool allow_long = false;   ///< positions past the trained context are allowed
    int batch = 512;           ///< prompt tokens per chunk of prefill
    bool keep_scores = false;  ///< remember the scores of kept tokens for kept(); not counted
};

/// Fits kvquant's levels for 2, 3, 4 and 8 bits on a text of at least 256 tokens, and returns a
/// file for CacheOptions::kvquant_codebook as text. Each number is weighted by the squared change
/// of its head's attention output (2401.18079 uses gradients of the loss). Holds the K, V and
/// queries of up to 2,048 tokens.
WINNOW_API std::string calibrate_kvquant(const std::shared_ptr<const Model>& model,
                                         std::span<const std::int32_t> tokens,
                                         const ProgressCallback& progress = {});

/// What lies in a cache at one precision.
struct PrecisionStats {
    int bits_k = 16;
    int bits_v = 16;
    std::uint64_t tokens = 0;  ///< summed over layers and kv heads
    std::uint64_t bytes = 0;   ///< codes, scales and zeros in use; positions not included
};

/// What a session's cache holds and cost. All bytes are exact.
struct CacheStats {
    std::uint64_t bytes = 0;               ///< the cache now, reserved tail included
    std::uint64_t bytes_peak = 0;          ///< its largest since the first prefill ended
    std::uint64_t bytes_full_f16 = 0;      ///< a full f16 cache of all tokens seen
    std::uint64_t allocated_bytes = 0;     ///< what the allocator handed out for the cache
    std::uint64_t policy_bytes = 0;        ///< query rings and running sums of the policy
    std::uint64_t prefill_peak_bytes = 0;  ///< largest total of cache and work memory in prefill
    std::vector<double> kept;              ///< [L] mean tokens per kv head, packed and tail
    double bits_k = 16.0;                  ///< mean stored bits per number of K, scales included
    double bits_v = 16.0;
    std::uint64_t tokens_seen = 0;
    std::uint64_t evictions = 0;   ///< tokens dropped while decoding, summed over heads and layers
    std::uint64_t repackings = 0;  ///< spans packed again after an eviction
    std::uint64_t demotions = 0;   ///< tokens moved to fewer bits while decoding, likewise
    /// Share of the attention of a prompt's last queries (W, or 8 where the method has no window)
    /// that fell on tokens the prefill dropped: mean over heads and layers, and the worst layer's.
    double dropped_mass = 0.0;
    double dropped_mass_worst = 0.0;
    bool guard_raised = false;       ///< guard raised the budget in the last prefill
    std::uint64_t budget_bytes = 0;  ///< what kv_budget allows now, raised by guard or not; 0: none
    std::vector<PrecisionStats> precisions;  ///< most bits first; f16 heads and tails are 16
};

struct SessionTiming {
    double prefill_ms = 0.0;   ///< of the last prefill, compression included
    double compress_ms = 0.0;  ///< the share of observe, score, select and pack
    /// Of all decode steps so far. A step over several sessions counts whole in each of them.
    double decode_attention_ms = 0.0;  ///< attending over the caches
    double decode_graph_ms = 0.0;      ///< the model's own products: embedding, weights, logits
};

/// One kv head's kept tokens.
struct KeptHead {
    std::vector<std::int32_t> positions;  ///< ascending
    std::vector<float> scores;            ///< parallel; NaN for tokens kept by rule
    std::vector<float> bits;              ///< parallel; mean of K's and V's, overhead not counted
};
struct KeptLayer {
    int budget = 0;               ///< tokens the policy allowed per kv head
    std::vector<KeptHead> heads;  ///< [G]
};

/// One conversation over one compressed cache. Keeps its model alive.
class WINNOW_API Session {
  public:
    /// Throws a usage Error when the options contradict each other or the model's shape.
    Session(std::shared_ptr<const Model> model, const CacheOptions& cache = {},
            const SessionOptions& options = {});
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    /// Reads a prompt, layer by layer: every layer sees the whole prompt at full precision, then
    /// its K and V are pruned, packed and freed. A second call continues: its tokens attend to
    /// what was kept, and the whole is pruned again, unless CacheOptions::question_hidden is set.
    /// At least one token. Throws a usage Error where what is pinned does not fit.
    void prefill(std::span<const std::int32_t> tokens, const ProgressCallback& progress = {});

    /// Reads one prompt for several sessions: the model runs once, and after each layer every
    /// session prunes and packs a copy of its own. Each ends with the bits of a prefill by itself.
    /// The sessions must be distinct, of one model, fresh (position 0) and of the same batch. The
    /// first counts the working memory; prefill_ms is the time of the whole in each of them.
    static void prefill(std::span<Session* const> sessions, std::span<const std::int32_t> tokens,
                        const ProgressCallback& progress = {});

    /// Tokens at positions [first, last) are never evicted, in this and later prompts, by any
    /// method; what is gone already does not come back. `mixed` may store them at fewer bits.
    /// Throws a usage Error unless 0 <= first < last, and where they do not fit beside sinks and
    /// window into the budget that a layer has; the next prefill looks at that too.
    void pin(int first, int last);

    /// Logits [V] after the last token read; valid until the next call on this session.
    std::span<const float> logits() const;

    /// Feeds one token and updates logits().
    void decode(std::int32_t token);
    /// Feeds tokens[i] to *sessions[i] in one step. All sessions must be of one model and distinct.
    static void decode(std::span<Session* const> sessions, std::span<const std::int32_t> tokens);

    /// Logits at every one of `tokens`, which are read through the cache as one chunk and left out
    /// of it: the session is unchanged. `sink(i, logits)` is called once per token, in order.
    void score(std::span<const std::int32_t> tokens,
               const std::function<void(int, std::span<const float>)>& sink);

    /// A copy of the session and its cache.
    Session clone() const;

    /// Writes all that it takes to go on with the same logits: cache, what the policy remembers,
    /// and the tokens seen. `path` is replaced as a whole and synced; it keeps its content where
    /// that fails, by a failure Error that names it.
    void save(const std::string& path) const;
    /// A session as save() left it. The file must be of the same model (by sha256) and the same
    /// cache options, defaults filled in. Throws a failure Error that says what differs or what is
    /// damaged, and a usage Error as the constructor does or where the context is too short.
    static Session load(std::shared_ptr<const Model> model, const std::string& path,
                        const CacheOptions& cache = {}, const SessionOptions& options = {});

    int position() const;                          ///< tokens seen so far
    std::span<const std::int32_t> tokens() const;  ///< these tokens; valid until the next call
    const std::vector<std::pair<int, int>>& pins() const;  ///< positions [first, last), ascending
    CacheStats stats() const;
    SessionTiming timing() const;
    /// Which tokens are kept now; scores are of the last selection.
    std::vector<KeptLayer> kept() const;
    const CacheOptions& options() const;  ///< with every default filled in
    const Model& model() const;
    /// FNV-1a of the bits of all logits so far, 16 hex digits; equal hashes mean equal runs.
    std::string logits_hash() const;

    struct Impl;
    Impl& impl() { return *impl_; }

  private:
    explicit Session(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Throws a usage Error that names the field when the options cannot hold for any model.
WINNOW_API void validate(const CacheOptions& options);

/// A row of `winnow methods`.
struct MethodInfo {
    std::string name, paper, summary, departures, defaults;
};
WINNOW_API std::vector<MethodInfo> policy_list();
WINNOW_API std::vector<MethodInfo> format_list();

/// Exact mean bytes per kept token of one layer and kv head, K and V, when packed with `cache`
/// (positions not included) for a head dimension of `head_dim`.
WINNOW_API double packed_bytes_per_token(const CacheOptions& cache, int head_dim);

}  // namespace winnow
