// Offline levels for kvquant: K and V of a text, each number weighted by how much the attention
// output depends on it. The paper weighs by the Fisher information, squared gradients of the loss;
// a forward pass reaches the same thing for the output o of a head:
//
//   dV[j][c] moves o[c] by p[i][j] dV          -> weight  sum over queries of p^2
//   dK[j][c] moves o by p[i][j] (v[j] - o) q[c] s dK
//                                              -> weight  sum of (p |v[j] - o| s q[c])^2
//
// with q turned back to key j, since keys are stored before RoPE. A sample of queries is enough.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "cache/codebook.h"
#include "core/threads.h"
#include "engine/codebook_file.h"
#include "engine/session_impl.h"
#include "kernels/dense.h"
#include "winnow/winnow.h"

namespace winnow {

namespace {

constexpr int kSegment = 2048;  // tokens read at once: all of a segment's layers are held
constexpr int kLeastTokens = 256;
constexpr int kQueries = 64;                     // observing queries per segment and head
constexpr int kVector = 128;                     // tokens of a key's channel normalised together
constexpr std::size_t kMostSamples = 1U << 16U;  // per layer and side

/// One layer's numbers, normalised as kvquant packs them, with their weights.
struct LayerSamples {
    std::vector<WeightedSample> k, v;
};

/// One kv head of one layer over a segment, everything in f32.
struct HeadRows {
    std::vector<float> k, k_plain, v;  // [T][D]: K after and before RoPE
    std::vector<float> k_weight;       // [T][D]
    std::vector<float> v_weight;       // [T]
};

class Segment {
  public:
    Segment(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
            const ProgressCallback& progress)
        : tokens_(static_cast<int>(tokens.size())), session_(model) {
        Session::Impl& s = session_.impl();
        s.plan.memory = {.window = tokens_};  // every query stays to be read
        for (int layer = 0; layer < s.hparams().layers; ++layer) {
            s.layers[layer].store = s.new_store(layer);
        }
        session_.prefill(tokens, progress);
        const std::size_t pairs = static_cast<std::size_t>(s.plan.rope->params().dims) / 2;
        cos_.resize(tokens.size() * pairs);
        sin_.resize(tokens.size() * pairs);
        for (std::size_t t = 0; t < tokens.size(); ++t) {
            s.plan.rope->angles(static_cast<int>(t), cos_.data() + t * pairs,
                                sin_.data() + t * pairs);
        }
    }

    /// Appends one layer's samples, at most `most` per side.
    void sample(int layer, std::size_t most, LayerSamples& out) {
        const Session::Impl& s = session_.impl();
        const Hparams& h = s.hparams();
        LayerStore& store = *s.layers[layer].store;
        std::vector<float> queries(static_cast<std::size_t>(tokens_) * h.query_heads * h.head_dim);
        store.read_queries(queries.data());
        std::vector<LayerSamples> parts(h.kv_heads);
        parallel_for(s.m().threads, h.kv_heads, [&](int g, int) {
            const HeadRows rows = weighted_rows(store, g, queries);
            add_keys(rows, most / h.kv_heads, parts[g].k);
            add_values(rows, most / h.kv_heads, parts[g].v);
        });
        for (const LayerSamples& part : parts) {
            out.k.insert(out.k.end(), part.k.begin(), part.k.end());
            out.v.insert(out.v.end(), part.v.begin(), part.v.end());
        }
    }

  private:
    int dims() { return session_.impl().hparams().head_dim; }

    HeadRows weighted_rows(const LayerStore& store, int g, const std::vector<float>& queries) {
        const Session::Impl& s = session_.impl();
        const Hparams& h = s.hparams();
        const std::size_t d = static_cast<std::size_t>(h.head_dim);
        const std::size_t size = static_cast<std::size_t>(tokens_) * d;
        std::vector<f16> k(size), v(size);
        std::vector<std::int32_t> positions(tokens_);
        store.read(g, k.data(), v.data(), positions.data());
        HeadRows rows{.k = std::vector<float>(size),
                      .k_plain = {},
                      .v = std::vector<float>(size),
                      .k_weight = std::vector<float>(size),
                      .v_weight = std::vector<float>(tokens_)};
        widen(k.data(), rows.k.data(), size);
        widen(v.data(), rows.v.data(), size);
        rows.k_plain = rows.k;
        for (int t = 0; t < tokens_; ++t) s.plan.rope->unrotate(rows.k_plain.data() + t * d, t);
        const int group = h.query_heads / h.kv_heads;
        for (int n = 0; n < kQueries; ++n) {
            const int i = (n + 1) * tokens_ / kQueries - 1;
            for (int r = 0; r < group; ++r) {
                const std::size_t head = static_cast<std::size_t>(g * group + r);
                add_query(queries.data() + (i * h.query_heads + head) * d, i, rows);
            }
        }
        return rows;
    }

    // What query i adds to the weights of the tokens it sees.
    void add_query(const float* q, int i, HeadRows& rows) {
        const int d = dims();
        const float scale = 1.0F / std::sqrt(static_cast<float>(d));
        std::vector<float> p(i + 1), out(d, 0.0F), turned(d);
        for (int j = 0; j <= i; ++j) {
            p[j] = scale * std::inner_product(q, q + d, rows.k.data() + j * d, 0.0F);
        }
        const float best = *std::max_element(p.begin(), p.end());
        float sum = 0.0F;
        for (float& x : p) sum += x = std::exp(x - best);
        for (int j = 0; j <= i; ++j) {
            p[j] /= sum;
            for (int c = 0; c < d; ++c) out[c] += p[j] * rows.v[j * d + c];
        }
        for (int j = 0; j <= i; ++j) {
            float apart = 0.0F;
            for (int c = 0; c < d; ++c) {
                const float x = rows.v[j * d + c] - out[c];
                apart += x * x;
            }
            const float share = p[j] * p[j];
            rows.v_weight[j] += share;
            turn_back(q, j, turned.data());
            const float weight = share * apart * scale * scale;
            for (int c = 0; c < d; ++c) {
                rows.k_weight[j * d + c] += weight * turned[c] * turned[c];
            }
        }
    }

    // q against the rotation of position j: what a key before RoPE is multiplied by.
    void turn_back(const float* q, int j, float* out) {
        const RopeParams& rope = session_.impl().plan.rope->params();
        const int pairs = rope.dims / 2;
        const float* cos = cos_.data() + static_cast<std::size_t>(j) * pairs;
        const float* sin = sin_.data() + static_cast<std::size_t>(j) * pairs;
        std::copy(q + rope.dims, q + dims(), out + rope.dims);
        for (int p = 0; p < pairs; ++p) {
            const int a = rope.halves ? p : 2 * p, b = rope.halves ? p + pairs : 2 * p + 1;
            out[a] = q[a] * cos[p] + q[b] * sin[p];
            out[b] = q[b] * cos[p] - q[a] * sin[p];
        }
    }

    // Channels of kVector tokens each; the first token stays f16 in the cache and is left out.
    void add_keys(const HeadRows& rows, std::size_t most, std::vector<WeightedSample>& out) {
        const int d = dims(), vectors = (tokens_ - 1) / kVector * d;
        const int step =
            std::max(1, static_cast<int>(vectors * kVector / std::max<std::size_t>(1, most)));
        float x[kVector], weight[kVector];
        for (int i = 0; i < vectors; i += step) {
            const int first = 1 + i / d * kVector;
            for (int t = 0; t < kVector; ++t) {
                x[t] = rows.k_plain[(first + t) * d + i % d];
                weight[t] = rows.k_weight[(first + t) * d + i % d];
            }
            add(x, weight, kVector, out);
        }
    }

    void add_values(const HeadRows& rows, std::size_t most, std::vector<WeightedSample>& out) {
        const int d = dims();
        const int step = std::max(1, static_cast<int>(static_cast<std::size_t>(tokens_) * d /
                                                      std::max<std::size_t>(1, most)));
        std::vector<float> weight(d);
        for (int t = 1; t < tokens_; t += step) {
            std::fill(weight.begin(), weight.end(), rows.v_weight[t]);
            add(rows.v.data() + t * d, weight.data(), d, out);
        }
    }

    // A vector's normalised numbers without its exact ones; an error there counts scale^2-fold.
    static void add(const float* x, const float* weight, int length,
                    std::vector<WeightedSample>& out) {
        const Normal normal = normalise(x, length, (length + 99) / 100, -1.0F);
        const float offset = f16_to_f32(normal.offset), scale = f16_to_f32(normal.scale);
        for (int i = 0; scale > 0.0F && i < length; ++i) {
            if (!normal.is_exact(i)) {
                out.push_back({(x[i] - offset) / scale, weight[i] * scale * scale});
            }
        }
    }

    int tokens_;
    Session session_;
    std::vector<float> cos_, sin_;  // [T][pairs]
};

std::vector<float> levels_of(std::vector<WeightedSample> samples, int bits) {
    std::vector<float> levels(std::size_t{1} << bits);
    fit_codebook(samples, bits, levels.data());
    return levels;
}

// Where the whole work stands: reading and weighing take a layer step each.
ProgressCallback part_of(const ProgressCallback& progress, int segment, int segments) {
    return [&progress, segment, segments](const Progress& at) {
        return !progress || progress({.layer = segment * at.layers + at.layer,
                                      .layers = segments * at.layers,
                                      .tokens = at.tokens,
                                      .tokens_total = at.tokens_total});
    };
}

}  // namespace

std::string calibrate_kvquant(const std::shared_ptr<const Model>& model,
                              std::span<const std::int32_t> tokens,
                              const ProgressCallback& progress) {
    const Hparams& h = model->impl().hparams;
    if (tokens.size() < kLeastTokens) {
        throw failure("the text has " + std::to_string(tokens.size()) +
                      " tokens, but calibrating needs at least " + std::to_string(kLeastTokens) +
                      ".");
    }
    const std::size_t most_tokens =
        std::min<std::size_t>(kSegment, static_cast<std::size_t>(h.trained_context));
    const std::size_t segments = (tokens.size() + most_tokens - 1) / most_tokens;
    const std::size_t length = tokens.size() / segments;
    std::vector<LayerSamples> samples(h.layers);
    for (std::size_t i = 0; i < segments; ++i) {
        const int parts = static_cast<int>(2 * segments), part = static_cast<int>(2 * i);
        Segment segment(model, tokens.subspan(i * length, length), part_of(progress, part, parts));
        const ProgressCallback weighing = part_of(progress, part + 1, parts);
        for (int layer = 0; layer < h.layers; ++layer) {
            segment.sample(layer, kMostSamples / segments, samples[layer]);
            if (!weighing({.layer = layer, .layers = h.layers, .tokens = 1, .tokens_total = 1})) {
                throw Error(ErrorKind::stopped, "stopped while calibrating.");
            }
        }
    }
    CodebookFile file{.model_name = model->info().name,
                      .sha256 = model->sha256(),
                      .tokens = static_cast<int>(segments * length),
                      .levels = {}};
    for (const int bits : {2, 3, 4, 8}) {
        std::vector<LayerLevels>& layers = file.levels[bits];
        layers.resize(h.layers);
        parallel_for(model->threads(), h.layers, [&](int layer, int) {
            layers[layer] = {.k = levels_of(samples[layer].k, bits),
                             .v = levels_of(samples[layer].v, bits)};
        });
    }
    return write_codebook(file);
}

}  // namespace winnow
