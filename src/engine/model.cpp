#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/threads.h"
#include "engine/model_impl.h"
#include "kernels/isa.h"
#include "model/read_hparams.h"
#include "text/chat_template.h"
#include "text/llama_logs.h"
#include "text/sampler.h"

namespace winnow {

namespace {

void fill_info(Model::Impl& m) {
    const Hparams& h = m.hparams;
    m.info = {.path = m.file->path(),
              .name = m.file->get_string("general.name",
                                         std::filesystem::path(m.file->path()).stem().string()),
              .architecture = m.arch->name,
              .layers = h.layers,
              .query_heads = h.query_heads,
              .kv_heads = h.kv_heads,
              .head_dim = h.head_dim,
              .embedding = h.embedding,
              .feed_forward = h.feed_forward,
              .vocabulary = h.vocabulary,
              .trained_context = h.trained_context,
              .weight_bytes = m.weights->bytes(),
              .parameters = m.weights->parameters()};
}

}  // namespace

DecodeGraphs& Model::Impl::graphs(int batch) const {
    const auto found = std::find_if(decode_graphs.begin(), decode_graphs.end(),
                                    [&](const auto& kept) { return kept.first == batch; });
    if (found != decode_graphs.end()) {
        std::rotate(decode_graphs.begin(), found, found + 1);
    } else {
        // Each size has activations of its own, so a batch that shrinks must not leave them behind.
        constexpr std::size_t kKeptSizes = 4;
        if (decode_graphs.size() == kKeptSizes) {
            decode_graphs.pop_back();
        }
        decode_graphs.emplace(
            decode_graphs.begin(), batch,
            std::make_unique<DecodeGraphs>(*arch, hparams, *weights, batch, threads));
    }
    return *decode_graphs.front().second;
}

DecodeAttention& Model::Impl::decode_attention() const {
    if (attention == nullptr) {
        attention =
            std::make_unique<DecodeAttention>(threads, hparams.query_heads, hparams.head_dim);
    }
    return *attention;
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

std::shared_ptr<const Model> Model::load(const std::string& path, const LoadOptions& options) {
    if (options.threads < 0 || options.threads > 512) {
        throw usage_error("the number of threads is " + std::to_string(options.threads) +
                          ", but must be from 1 to 512.");
    }
    apply_forced_isa();
    auto impl = std::make_unique<Impl>();
    impl->threads = options.threads > 0 ? options.threads : default_threads();
    impl->file = std::make_shared<const gguf::File>(gguf::File::open(path));
    gguf::refuse_unsupported(*impl->file);
    impl->arch = &find_arch(*impl->file);
    impl->hparams = read_hparams(*impl->file, *impl->arch);
    require_memory(*impl->file, impl->hparams, options);
    impl->rope = std::make_shared<RopeTable>(impl->hparams.rope);
    init_llama();
    impl->weights = std::make_unique<WeightStore>(impl->file, *impl->arch, impl->hparams);
    impl->vocab = Vocab::load(path);
    fill_info(*impl);
    return std::shared_ptr<const Model>(new Model(std::move(impl)));
}

const ModelInfo& Model::info() const {
    return impl_->info;
}
int Model::threads() const {
    return impl_->threads;
}

std::vector<std::int32_t> Model::tokenize(std::string_view text, bool add_special,
                                          bool parse_special) const {
    return impl_->vocab->tokenize(text, add_special, parse_special);
}

std::string Model::piece(std::int32_t token, bool special) const {
    return impl_->vocab->piece(token, special);
}

bool Model::is_end_of_generation(std::int32_t token) const {
    return impl_->vocab->is_eog(token);
}

bool Model::has_chat_template() const {
    return !impl_->vocab->chat_template_source().empty();
}

std::string Model::apply_chat_template(std::span<const ChatMessage> messages,
                                       bool add_generation_prompt,
                                       const std::string& chat_template) const {
    const Vocab& vocab = *impl_->vocab;
    const std::string source =
        chat_template.empty() ? vocab.chat_template_source() : built_in_template(chat_template);
    if (source.empty()) {
        throw failure("'" + impl_->info.path +
                      "': the file has no chat template; give one by --chat-template, or use "
                      "-no-cnv.");
    }
    const auto text_of = [&](std::int32_t token) {
        return token < 0 ? std::string() : vocab.piece(token, true);
    };
    std::vector<ChatTurn> turns;
    for (const ChatMessage& message : messages) {
        turns.push_back({message.role, message.content});
    }
    return ChatTemplate(source, text_of(vocab.bos()), text_of(vocab.eos()))
        .apply(turns, add_generation_prompt);
}

struct Sampler::Impl {
    std::shared_ptr<const Model> model;
    TokenSampler sampler;
};

Sampler::Sampler(std::shared_ptr<const Model> model, const SamplingOptions& options)
    : impl_(
          new Impl{model, TokenSampler(*model->impl().vocab, options, model->info().vocabulary)}) {}
Sampler::~Sampler() = default;
std::int32_t Sampler::sample(std::span<const float> logits) {
    return impl_->sampler.sample(logits);
}
void Sampler::accept(std::int32_t token) {
    impl_->sampler.accept(token);
}

const char* version() {
    return WINNOW_VERSION;
}

}  // namespace winnow
