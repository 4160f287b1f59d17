// The L + 1 graphs of a decode step: embed and qkv of layer 0, then per layer mix and the next
// layer's qkv, last mix and the output head. Built once per batch size.
#pragma once

#include <cstdint>
#include <vector>

#include "model/graph.h"
#include "model/step_products.h"

namespace winnow {

class DecodeGraphs {
  public:
    DecodeGraphs(const Arch& arch, const Hparams& hparams, const WeightStore& store, int batch,
                 int threads);

    /// Embeds `tokens` [n] and computes layer 0's q [n][H][D], k, v [n][G][D].
    void begin(const std::int32_t* tokens, const std::int32_t* positions, float* q, float* k,
               float* v);
    /// Takes attended [n][H*D] of `layer`, and computes the next layer's q, k, v.
    void next(int layer, const float* attended, float* q, float* k, float* v);
    /// [n][E] that the layer whose q, k, v came last takes in.
    const float* hidden() const { return hidden_.data(); }
    /// Takes attended [n][H*D] of the last layer; logits [n][V].
    void finish(const float* attended, float* logits);

  private:
    struct Step {
        Graph graph;
        ggml_tensor *tokens = nullptr, *positions = nullptr, *x = nullptr, *attended = nullptr;
        Qkv qkv;
        ggml_tensor *hidden = nullptr, *logits = nullptr;
    };
    void read_qkv(const Step& step, float* q, float* k, float* v) const;

    StepProducts products_;
    std::vector<Step> steps_;
    std::vector<float> hidden_;  // [n][E] between the graphs
    std::vector<std::int32_t> positions_;
    GraphRunner runner_;
};

}  // namespace winnow
