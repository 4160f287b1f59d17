#include "text/vocab.h"

#include <llama.h>
#include <winnow/error.h>

#include <exception>
#include <limits>
#include <utility>

#include "text/llama_logs.h"

namespace winnow {
namespace {

constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();

struct FreeModel {
    void operator()(llama_model* model) const { llama_model_free(model); }
};
using ModelPtr = std::unique_ptr<llama_model, FreeModel>;

ModelPtr load_vocab_only(const std::string& path) {
    init_llama();
    take_llama_error();
    ggml_backend_dev_t no_devices[] = {nullptr};  // a tokenizer must not wake a GPU
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    params.n_gpu_layers = 0;
    params.devices = no_devices;
    std::string reason;
    try {
        ModelPtr model(llama_model_load_from_file(path.c_str(), params));
        if (model) return model;
    } catch (const std::exception& error) {
        reason = error.what();
    }
    if (reason.empty()) reason = take_llama_error();
    throw failure("The tokenizer of '" + path +
                  "' cannot be loaded: " + (reason.empty() ? "libllama gives no reason" : reason) +
                  ". A GGUF model with a tokenizer that llama.cpp knows is needed.");
}

}  // namespace

struct Vocab::Impl {
    std::string path;
    ModelPtr model;
    const llama_vocab* vocab = nullptr;
    bool has_tokens = false;
    std::string chat_template;
};

std::shared_ptr<const Vocab> Vocab::load(const std::string& path) {
    auto impl = std::make_shared<Impl>();
    impl->path = path;
    impl->model = load_vocab_only(path);
    impl->vocab = llama_model_get_vocab(impl->model.get());
    impl->has_tokens = llama_vocab_type(impl->vocab) != LLAMA_VOCAB_TYPE_NONE;
    const char* source = llama_model_chat_template(impl->model.get(), nullptr);
    if (source != nullptr) impl->chat_template = source;
    return std::shared_ptr<const Vocab>(new Vocab(std::move(impl)));
}

Vocab::Vocab(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Vocab::~Vocab() = default;

std::vector<int32_t> Vocab::tokenize(std::string_view text, bool add_special,
                                     bool parse_special) const {
    if (!impl_->has_tokens) {
        throw failure("'" + impl_->path +
                      "' has no tokenizer (tokenizer.ggml.model is \"none\"), so text cannot be "
                      "turned into tokens; give token ids instead.");
    }
    if (text.size() >= kMaxTextBytes) {
        throw failure("The text has " + std::to_string(text.size()) +
                      " bytes; at most 2147483646 can be tokenized at once.");
    }
    // One token per two bytes is rarely passed, and a second run of the tokenizer is costly.
    std::vector<int32_t> tokens(text.size() / 2 + 16);
    for (int attempt = 0; attempt < 2; ++attempt) {
        int32_t count = 0;
        try {
            count = llama_tokenize(impl_->vocab, text.data(), static_cast<int32_t>(text.size()),
                                   tokens.data(), static_cast<int32_t>(tokens.size()), add_special,
                                   parse_special);
        } catch (const std::exception& error) {
            throw failure("The text cannot be tokenized with the tokenizer of '" + impl_->path +
                          "': " + error.what() + ".");
        }
        if (count == std::numeric_limits<int32_t>::min()) break;
        tokens.resize(static_cast<size_t>(count < 0 ? -count : count));
        if (count >= 0) return tokens;
    }
    throw failure("The text of " + std::to_string(text.size()) +
                  " bytes gives more than 2147483647 tokens; split it.");
}

void Vocab::need_token(int32_t token) const {
    if (token >= 0 && token < size()) return;
    throw failure("Token " + std::to_string(token) + " is not in the vocabulary of '" +
                  impl_->path + "'; ids are 0 to " + std::to_string(size() - 1) + ".");
}

std::string Vocab::piece(int32_t token, bool special) const {
    need_token(token);
    if (!impl_->has_tokens) return {};
    std::string text(32, '\0');
    for (;;) {
        const int32_t bytes =
            llama_token_to_piece(impl_->vocab, token, text.data(),
                                 static_cast<int32_t>(text.size()), /*lstrip=*/0, special);
        text.resize(static_cast<size_t>(bytes < 0 ? -bytes : bytes));
        if (bytes >= 0) return text;
    }
}

std::string Vocab::detokenize(std::span<const int32_t> tokens, bool special) const {
    for (const int32_t token : tokens) need_token(token);
    if (!impl_->has_tokens || tokens.empty()) return {};
    if (tokens.size() > kMaxTextBytes / 8) {
        throw failure(std::to_string(tokens.size()) +
                      " tokens are too many to turn into text at once; split them.");
    }
    std::string text(tokens.size() * 8, '\0');
    for (;;) {
        const int32_t bytes = llama_detokenize(
            impl_->vocab, tokens.data(), static_cast<int32_t>(tokens.size()), text.data(),
            static_cast<int32_t>(text.size()), /*remove_special=*/false, special);
        text.resize(static_cast<size_t>(bytes < 0 ? -bytes : bytes));
        if (bytes >= 0) return text;
    }
}

std::vector<int32_t> Vocab::suppressed() const {
    int32_t count = 0;
    const llama_token* ids = llama_vocab_get_suppress_tokens(impl_->vocab, &count);
    return ids == nullptr ? std::vector<int32_t>() : std::vector<int32_t>(ids, ids + count);
}

int32_t Vocab::size() const noexcept {
    return llama_vocab_n_tokens(impl_->vocab);
}
int32_t Vocab::bos() const noexcept {
    return llama_vocab_bos(impl_->vocab);
}
int32_t Vocab::eos() const noexcept {
    return llama_vocab_eos(impl_->vocab);
}
int32_t Vocab::eot() const noexcept {
    return llama_vocab_eot(impl_->vocab);
}
bool Vocab::is_eog(int32_t token) const noexcept {
    return llama_vocab_is_eog(impl_->vocab, token);
}
bool Vocab::add_bos() const noexcept {
    return llama_vocab_get_add_bos(impl_->vocab);
}
bool Vocab::has_tokens() const noexcept {
    return impl_->has_tokens;
}
const std::string& Vocab::chat_template_source() const noexcept {
    return impl_->chat_template;
}
const llama_vocab* Vocab::handle() const noexcept {
    return impl_->vocab;
}
std::shared_ptr<const void> Vocab::keep_alive() const noexcept {
    return impl_;
}

}  // namespace winnow
