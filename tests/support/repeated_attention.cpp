#include "support/repeated_attention.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/second_pass.h"
#include "engine/session_impl.h"
#include "model/weights.h"
#include "support/attention_probe.h"

namespace winnow::testing {

namespace {

constexpr int kSinks = 4;

using Tokens = std::vector<std::int32_t>;

double length(const float* x, int n) {
    double squares = 0.0;
    for (int i = 0; i < n; ++i) {
        squares += static_cast<double>(x[i]) * x[i];
    }
    return std::sqrt(squares);
}

// [2][T] lengths of what the layers of a model of two take in: the token's embedding, and what
// decoding with everything kept hands to the last layer.
std::vector<std::vector<double>> input_lengths(const std::shared_ptr<const Model>& model,
                                               const Tokens& tokens) {
    const Model::Impl& m = model->impl();
    const int width = m.hparams.embedding;
    const auto* embeddings =
        static_cast<const float*>(m.weights->plain_data(m.weights->weights().token_embd));
    std::vector<std::vector<double>> lengths(2);
    Session full(model);
    for (const std::int32_t token : tokens) {
        full.decode(token);
        lengths[0].push_back(length(embeddings + static_cast<std::size_t>(token) * width, width));
        lengths[1].push_back(length(m.graphs(1).hidden(), width));
    }
    return lengths;
}

// |W_o v| of token t of kv head g through query head g * group + r.
double output_length(const Model::Impl& m, int layer, const reference::Layer& seen, int g, int r,
                     int t) {
    const ggml_tensor* wo = m.weights->weights().layers[static_cast<std::size_t>(layer)].wo;
    const auto* rows = static_cast<const float*>(m.weights->plain_data(wo));
    const int dims = seen.head_dim, columns = seen.query_heads * dims;
    double squares = 0.0;
    for (int e = 0; e < m.hparams.embedding; ++e) {
        double sum = 0.0;
        for (int d = 0; d < dims; ++d) {
            const int column = (g * seen.group() + r) * dims + d;
            sum += static_cast<double>(rows[static_cast<std::size_t>(e) * columns + column]) *
                   f16_to_f32(seen.values[static_cast<std::size_t>(g)]
                                         [static_cast<std::size_t>(t) * dims + d]);
        }
        squares += sum * sum;
    }
    return std::sqrt(squares);
}

}  // namespace

std::vector<std::vector<double>> repeated_scores(const std::shared_ptr<const Model>& model,
                                                 const Tokens& tokens, int piece, bool plus) {
    const Model::Impl& m = model->impl();
    const int heads = m.hparams.kv_heads, read = static_cast<int>(tokens.size());
    std::vector<std::vector<double>> scores(static_cast<std::size_t>(m.hparams.layers * heads),
                                            std::vector<double>(tokens.size(), 0.0));
    for (int first = 0; first < read; first += piece) {
        Tokens all = tokens;
        const int count = std::min(piece, read - first);
        const Tokens repeated = repeat_prompt(m, tokens, first, count);
        all.insert(all.end(), repeated.begin(), repeated.end());
        const auto layers = probe_attention(model, all);
        const auto lengths = plus ? input_lengths(model, all) : std::vector<std::vector<double>>{};
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const int layer = static_cast<int>(i) / heads, g = static_cast<int>(i) % heads;
            const reference::Layer& seen = layers[static_cast<std::size_t>(layer)].attention;
            for (int r = 0; r < seen.group(); ++r) {
                std::vector<double> peaks(tokens.size(), 0.0);
                for (int row = read; row < static_cast<int>(all.size()); ++row) {
                    const auto weight = reference::attention_row(seen, g, r, row);
                    double sum = 0.0;
                    for (int t = 0; t <= row; ++t) {
                        const bool counts =
                            t < kSinks || t >= read || (t >= first && t < first + count);
                        sum += counts ? weight[static_cast<std::size_t>(t)] : 0.0;
                    }
                    if (plus) {
                        sum *=
                            lengths[static_cast<std::size_t>(layer)][static_cast<std::size_t>(row)];
                    }
                    for (int t = first; t < first + count; ++t) {
                        const auto at = static_cast<std::size_t>(t);
                        peaks[at] = std::max(peaks[at], weight[at] / sum);
                    }
                }
                for (int t = first; t < first + count; ++t) {
                    const auto at = static_cast<std::size_t>(t);
                    const double factor = plus ? output_length(m, layer, seen, g, r, t) : 1.0;
                    scores[i][at] = std::max(scores[i][at], factor * peaks[at]);
                }
            }
        }
    }
    return scores;
}

std::vector<Tokens> best_of_all(const std::vector<std::vector<double>>& scores, int total) {
    struct Best {
        double score;
        std::size_t head;
        std::int32_t token;
    };
    std::vector<Best> order;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        for (std::size_t t = kSinks; t < scores[i].size(); ++t) {
            order.push_back({scores[i][t], i, static_cast<std::int32_t>(t)});
        }
    }
    std::sort(order.begin(), order.end(),
              [](const Best& a, const Best& b) { return a.score > b.score; });
    order.resize(static_cast<std::size_t>(total) - scores.size() * kSinks);
    std::vector<Tokens> want(scores.size(), {0, 1, 2, 3});
    for (const Best& best : order) {
        want[best.head].push_back(best.token);
    }
    for (Tokens& tokens : want) {
        std::sort(tokens.begin(), tokens.end());
    }
    return want;
}

int different(const std::vector<Tokens>& want, const std::vector<KeptLayer>& kept) {
    const std::size_t heads = kept[0].heads.size();
    Tokens alone;
    for (std::size_t i = 0; i < want.size(); ++i) {
        const Tokens& positions = kept[i / heads].heads[i % heads].positions;
        std::set_symmetric_difference(want[i].begin(), want[i].end(), positions.begin(),
                                      positions.end(), std::back_inserter(alone));
    }
    return static_cast<int>(alone.size());
}

}  // namespace winnow::testing
