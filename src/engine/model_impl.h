// What a Model holds.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "attend/decode_attention.h"
#include "engine/decode_graphs.h"
#include "gguf/precheck.h"
#include "model/arch.h"
#include "model/weights.h"
#include "text/vocab.h"
#include "winnow/winnow.h"

namespace winnow {

struct Model::Impl {
    ModelInfo info;
    int threads = 1;
    std::shared_ptr<const gguf::File> file;
    const Arch* arch = nullptr;
    Hparams hparams;
    std::shared_ptr<RopeTable> rope;  // grown under `compute`
    std::unique_ptr<WeightStore> weights;
    std::shared_ptr<const Vocab> vocab;

    // Computation on one model runs one call at a time.
    mutable std::mutex compute;
    // By batch size, the last used first.
    mutable std::vector<std::pair<int, std::unique_ptr<DecodeGraphs>>> decode_graphs;
    mutable std::unique_ptr<DecodeAttention> attention;
    mutable std::once_flag hashed;
    mutable std::string sha256;

    BlockContext block(ggml_context* ctx, ggml_tensor* positions,
                       Products* products = nullptr) const {
        return {.ctx = ctx,
                .hparams = &hparams,
                .weights = &weights->weights(),
                .positions = positions,
                .products = products};
    }
    /// The graphs of a decode step of `batch` sessions, built on first use. Hold `compute`.
    DecodeGraphs& graphs(int batch) const;
    /// The attention of decode steps, with its scratch. Hold `compute`.
    DecodeAttention& decode_attention() const;
};

/// Throws a failure Error naming the file where its weights and the cache that `options` announce
/// would not fit in free memory.
void require_memory(const gguf::File& file, const Hparams& hparams, const LoadOptions& options);

}  // namespace winnow
