// The tokenizer of a GGUF file, through libllama's vocabulary-only loader.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct llama_vocab;

namespace winnow {

/// Immutable, so it may be used from several threads. Tokens are ids in [0, size()); -1 is none.
class Vocab {
  public:
    /// Reads the tokenizer of the GGUF file, no weights. Throws Error (failure) naming the file.
    static std::shared_ptr<const Vocab> load(const std::string& path);
    ~Vocab();
    Vocab(const Vocab&) = delete;
    Vocab& operator=(const Vocab&) = delete;

    /// add_special adds what the model wants around a text (BOS, EOS); parse_special turns the text
    /// of control tokens such as <|im_end|> into these tokens instead of spelling them.
    /// Throws Error (failure) if the file has no tokenizer or the text is over 2 GiB.
    std::vector<int32_t> tokenize(std::string_view text, bool add_special,
                                  bool parse_special) const;
    /// Bytes of one token, maybe a part of a character; control tokens are empty unless special.
    std::string piece(int32_t token, bool special) const;
    /// Bytes of a sequence, without the space that some tokenizers put in front.
    std::string detokenize(std::span<const int32_t> tokens, bool special = false) const;

    int32_t size() const noexcept;              ///< number of token ids
    int32_t bos() const noexcept;               ///< begin of text, -1 if none
    int32_t eos() const noexcept;               ///< end of text, -1 if none
    int32_t eot() const noexcept;               ///< end of turn, -1 if none
    bool is_eog(int32_t token) const noexcept;  ///< whether the token ends an answer
    bool add_bos() const noexcept;              ///< whether add_special puts BOS in front
    bool has_tokens() const noexcept;           ///< false for tokenizer.ggml.model "none"
    /// Ids that the file says must never be drawn.
    std::vector<int32_t> suppressed() const;
    /// tokenizer.chat_template of the file, Jinja source; empty if none.
    const std::string& chat_template_source() const noexcept;

    /// libllama's own handle, for the sampler; lives as long as this object or keep_alive().
    const llama_vocab* handle() const noexcept;
    std::shared_ptr<const void> keep_alive() const noexcept;

  private:
    struct Impl;
    explicit Vocab(std::shared_ptr<const Impl> impl);
    void need_token(int32_t token) const;

    std::shared_ptr<const Impl> impl_;
};

}  // namespace winnow
