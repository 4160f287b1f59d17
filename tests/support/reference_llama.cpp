#include "support/reference_llama.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/f16.h"
#include "text/llama_logs.h"

namespace winnow::testing {

namespace {

constexpr int kChunk = 512;

struct FreeModel {
    void operator()(llama_model* model) const { llama_model_free(model); }
};
struct FreeContext {
    void operator()(llama_context* context) const { llama_free(context); }
};

// log(sum(exp(x))) in double precision.
double log_sum(std::span<const float> x) {
    const double best = *std::max_element(x.begin(), x.end());
    double sum = 0.0;
    for (const float value : x) {
        sum += std::exp(value - best);
    }
    return best + std::log(sum);
}

// Called around each node of libllama's graph: rounds a cache after rows were written to it.
bool round_cache(ggml_tensor* tensor, bool ask, void* /*user_data*/) {
    if (ask) {
        return tensor->op == GGML_OP_SET_ROWS;
    }
    auto* values = static_cast<float*>(tensor->data);
    for (std::int64_t i = 0; i < ggml_nelements(tensor); ++i) {
        values[i] = f16_to_f32(f32_to_f16(values[i]));
    }
    return true;
}

}  // namespace

struct ReferenceLlama::Impl {
    std::unique_ptr<llama_model, FreeModel> model;
    std::unique_ptr<llama_context, FreeContext> context;
    std::span<const std::int32_t> tokens;
    int asked = 0;  // the first token whose logits are wanted
    int first = 0;  // of those read last
    int end = 0;    // tokens read
    std::size_t vocabulary = 0;

    // Reads tokens [end, end + count).
    void read(const std::int32_t* from, int count) {
        llama_batch batch = llama_batch_init(count, 0, 1);
        batch.n_tokens = count;
        for (int i = 0; i < count; ++i) {
            batch.token[i] = from[i];
            batch.pos[i] = end + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = end + i >= asked ? 1 : 0;
        }
        const int result = llama_decode(context.get(), batch);
        llama_batch_free(batch);
        if (result != 0) {
            throw std::runtime_error("libllama could not read the tokens");
        }
        first = end;
        end += count;
    }

    std::span<const float> logits(int i) {
        return {llama_get_logits_ith(context.get(), i - first), vocabulary};
    }
};

ReferenceLlama::ReferenceLlama(const std::string& path, int context, int threads,
                               ReferenceCache cache)
    : impl_(std::make_unique<Impl>()) {
    init_llama();
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    // Weights repacked for the CPU's own products are out of reach of another device.
    model_params.use_extra_bufts = ggml_backend_reg_by_name("BLAS") == nullptr;
    impl_->model.reset(llama_model_load_from_file(path.c_str(), model_params));
    if (impl_->model == nullptr) {
        throw std::runtime_error("libllama cannot load " + path);
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<std::uint32_t>(context);
    params.n_batch = params.n_ubatch = kChunk;
    params.n_threads = params.n_threads_batch = threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k = params.type_v = cache == ReferenceCache::f16 ? GGML_TYPE_F16 : GGML_TYPE_F32;
    params.cb_eval = cache == ReferenceCache::rounded ? round_cache : nullptr;
    impl_->context.reset(llama_init_from_model(impl_->model.get(), params));
    if (impl_->context == nullptr) {
        throw std::runtime_error("libllama cannot make a context for " + path);
    }
    impl_->vocabulary =
        static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(impl_->model.get())));
}

ReferenceLlama::~ReferenceLlama() = default;

void ReferenceLlama::start(std::span<const std::int32_t> tokens, int first) {
    llama_memory_clear(llama_get_memory(impl_->context.get()), true);
    impl_->tokens = tokens;
    impl_->asked = first;
    impl_->first = impl_->end = 0;
}

std::span<const float> ReferenceLlama::logits(int i) {
    if (i < std::max(impl_->first, impl_->asked) || i >= static_cast<int>(impl_->tokens.size())) {
        throw std::runtime_error("the reference reads forwards only");
    }
    while (i >= impl_->end) {
        const int left = static_cast<int>(impl_->tokens.size()) - impl_->end;
        impl_->read(impl_->tokens.data() + impl_->end, std::min(kChunk, left));
    }
    return impl_->logits(i);
}

std::span<const float> ReferenceLlama::read_at(int i, std::int32_t token) {
    if (i > impl_->end || !llama_memory_seq_rm(llama_get_memory(impl_->context.get()), 0, i, -1)) {
        throw std::runtime_error("the reference cannot go on from there");
    }
    impl_->end = i;
    impl_->read(&token, 1);
    return impl_->logits(i);
}

std::vector<std::int32_t> ReferenceLlama::tokenize(const std::string& text) const {
    const llama_vocab* vocab = llama_model_get_vocab(impl_->model.get());
    std::vector<std::int32_t> tokens(text.size() + 8);
    const int count =
        llama_tokenize(vocab, text.data(), static_cast<std::int32_t>(text.size()), tokens.data(),
                       static_cast<std::int32_t>(tokens.size()), false, true);
    if (count < 0) {
        throw std::runtime_error("libllama could not tokenize the text");
    }
    tokens.resize(static_cast<std::size_t>(count));
    return tokens;
}

void Agreement::add(std::span<const float> reference, std::span<const float> found) {
    if (reference.size() != found.size()) {
        throw std::runtime_error("the vocabularies differ");
    }
    const double of_reference = log_sum(reference);
    const double of_found = log_sum(found);
    double kl = 0.0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
        const double p = reference[i] - of_reference;
        kl += std::exp(p) * (p - (found[i] - of_found));
    }
    const auto best = [](std::span<const float> x) {
        return std::max_element(x.begin(), x.end()) - x.begin();
    };
    kl_ += kl;
    worst_ = std::max(worst_, std::isnan(kl) ? HUGE_VAL : kl);
    same_ += best(reference) == best(found) ? 1 : 0;
    ++positions_;
}

}  // namespace winnow::testing
