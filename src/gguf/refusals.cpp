// Sound GGUF files that are not a whole language model, refused by name.
#include <algorithm>
#include <array>

#include "gguf/checks.h"

namespace winnow::gguf {

namespace {

void refuse_part(const File& file) {
    const std::uint64_t parts = file.get_u64("split.count", 0);
    if (parts <= 1) return;
    throw file.error("this is part " + std::to_string(file.get_u64("split.no", 0) + 1) + " of " +
                     std::to_string(parts) +
                     " of a split model; merge the parts into one file first, with "
                     "llama-gguf-split --merge <first part> <output>");
}

void refuse_type(const File& file) {
    const std::string type = file.get_string("general.type", "model");
    const std::string arch = file.get_string("general.architecture", "");
    const auto has_prefix = [&](std::string_view prefix) {
        return std::ranges::any_of(file.values(),
                                   [&](const KeyValue& v) { return v.key.starts_with(prefix); });
    };
    if (type == "adapter" || has_prefix("adapter.")) {
        throw file.error(
            "this is a LoRA adapter, not a model; merge it into its base model "
            "first, with llama-export-lora");
    }
    if (type == "mmproj" || type == "projector" || arch == "clip" || has_prefix("clip.")) {
        throw file.error(
            "this is the projector of a multimodal model (mmproj), not a language "
            "model; name the language model's own file");
    }
    if (type == "imatrix" || has_prefix("imatrix.")) {
        throw file.error("this is an importance matrix (imatrix) for quantising, not a model");
    }
    if (type != "model") {
        throw file.error("general.type is " + quoted(type) + "; only 'model' can be run");
    }
}

void refuse_tokenizer(const File& file) {
    static constexpr std::array<std::string_view, 4> kKnown = {"gpt2", "llama", "none", "no_vocab"};
    const std::string model = file.get_string("tokenizer.ggml.model", "none");
    if (std::ranges::find(kKnown, model) == kKnown.end()) {
        throw file.error("tokenizer.ggml.model is " + quoted(model) +
                         "; 'gpt2', 'llama' and 'none' are known");
    }
    const bool needs_tokens = model == "gpt2" || model == "llama";
    if (needs_tokens && !file.has("tokenizer.ggml.tokens")) {
        throw file.error("tokenizer.ggml.tokens is missing, which tokenizer.ggml.model " +
                         quoted(model) + " needs");
    }
    if (model == "gpt2" && !file.has("tokenizer.ggml.merges")) {
        throw file.error(
            "tokenizer.ggml.merges is missing, which tokenizer.ggml.model 'gpt2' "
            "needs");
    }
}

}  // namespace

void refuse_unsupported(const File& file) {
    refuse_part(file);
    refuse_type(file);
    if (file.tensors().empty()) {
        throw file.error("the file holds no tensors, only a vocabulary; a whole model is needed");
    }
    refuse_tokenizer(file);
}

}  // namespace winnow::gguf
