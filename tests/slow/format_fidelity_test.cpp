// What the formats lose on real models: 1,536 tokens of English are packed, the next ones are
// teacher-forced, and the mean KL divergence to the full 16-bit cache is printed and bounded.
// $WINNOW_FIDELITY_PLACE, a number of tokens, begins further on in the text, where nothing is
// bounded; $WINNOW_FIDELITY_TOKENS is a file that gets the tokens, for bench/format_reference.py.
#include <gtest/gtest.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "engine/session_impl.h"
#include "support/test_files.h"

namespace winnow {
namespace {

constexpr int kPrompt = 1536;
constexpr int kForced = 192;

struct Row {
    const char* format;
    int bits_k, bits_v, group, key_axis;
    double bound[2];  // largest mean KL: SmolLM2, Qwen2.5
};

// Bounds are well above what was measured (docs/formats.md), and say what a format is for.
const Row kRows[] = {
    {"kivi", 8, 8, 32, 0, {1e-4, 1e-4}},     {"kivi", 4, 4, 32, 0, {2e-3, 3e-3}},
    {"kivi", 3, 3, 32, 0, {1e-2, 2e-2}},     {"kivi", 2, 2, 32, 0, {0.12, 0.2}},
    {"kivi", 3, 2, 32, 0, {3e-2, 4e-2}},     {"kivi", 2, 2, 64, 1, {4.0, 6.0}},
    {"kivi", 4, 4, 64, 1, {0.02, 2.0}},      {"kvquant", 3, 3, 32, 0, {2e-2, 4e-2}},
    {"rotated", 3, 3, 32, 1, {2e-2, 0.1}},   {"hqq", 4, 4, 32, 0, {3e-3, 6e-3}},
    {"kvquant", 4, 4, 32, 0, {2e-3, 3e-3}},  {"kvquant", 2, 2, 32, 0, {0.06, 0.12}},
    {"rotated", 4, 4, 32, 1, {2e-3, 8e-3}},  {"rotated", 2, 2, 32, 1, {0.3, 3.0}},
    {"kvarn", 4, 4, 32, 0, {2e-3, 6e-3}},    {"kvarn", 3, 3, 32, 0, {1e-2, 4e-2}},
    {"kvarn", 2, 2, 32, 0, {0.2, 0.5}},      {"graded", 4, 4, 64, 0, {7e-4, 2e-3}},
    {"graded", 3, 3, 64, 0, {3.5e-3, 1e-2}}, {"graded", 2, 2, 64, 0, {0.02, 0.03}},
    {"graded", 2, 2, 32, 0, {0.015, 0.025}}, {"graded", 3, 2, 64, 0, {0.015, 0.025}},
};

CacheOptions options_of(const Row& row) {
    CacheOptions o;
    o.quant_method = row.format;
    o.nbits_k = row.bits_k;
    o.nbits_v = row.bits_v;
    o.group_size = row.group;
    o.key_axis = row.key_axis;
    o.sinks_full_precision = 4;
    o.residual_length = 128;
    return o;
}

// Log-probabilities [tokens][V] in the order in which they are read.
std::vector<float> log_probabilities(Session& session, const std::vector<std::int32_t>& next) {
    std::vector<float> all;
    session.score(next, [&](int, std::span<const float> logits) {
        const float most = *std::max_element(logits.begin(), logits.end());
        double sum = 0.0;
        for (const float x : logits) sum += std::exp(static_cast<double>(x - most));
        const float norm = most + static_cast<float>(std::log(sum));
        for (const float x : logits) all.push_back(x - norm);
    });
    return all;
}

double mean_kl(const std::vector<float>& full, const std::vector<float>& other, int tokens) {
    double sum = 0.0;
    for (std::size_t i = 0; i < full.size(); ++i) {
        const auto log_p = static_cast<double>(full[i]);
        sum += std::exp(log_p) * (log_p - static_cast<double>(other[i]));
    }
    return sum / tokens;
}

// Bits per packed number, scales and zeros included; and what the fitted data adds at this length.
void print_row(const Row& row, Session& session, double kl) {
    double k = 0.0, v = 0.0, numbers = 0.0, side = 0.0;
    for (const SessionLayer& layer : session.impl().layers) {
        for (int g = 0; g < layer.store->kv_heads(); ++g) {
            const Span& span = layer.store->span(g);
            k += 8.0 * static_cast<double>(span.k_bytes());
            v += 8.0 * static_cast<double>(span.v_bytes());
            numbers +=
                static_cast<double>(span.packed_tokens()) * layer.store->layout().spec.head_dim;
        }
        const FormatSpec& spec = layer.store->layout().spec;
        const int floats = spec.format->side_floats == nullptr ? 0 : spec.format->side_floats(spec);
        side += 32.0 * floats * (spec.format->side_per_head ? layer.store->kv_heads() : 1);
    }
    std::printf("  %-8s K %d V %d group %-3d  %.3f bits (K %.3f, V %.3f, fitted +%.3f)  KL %.5f\n",
                row.format, row.bits_k, row.bits_v, row.group, (k + v) / numbers / 2, k / numbers,
                v / numbers, side / numbers / 2, kl);
}

// Where in the text a prompt begins.
int place() {
    const char* chosen = std::getenv("WINNOW_FIDELITY_PLACE");
    return chosen != nullptr ? std::stoi(chosen) : 0;
}

void write_tokens(const std::vector<std::int32_t>& tokens, const std::string& model) {
    const char* path = std::getenv("WINNOW_FIDELITY_TOKENS");
    if (path == nullptr) return;
    std::ofstream out(path + ("." + model));
    for (const std::int32_t token : tokens) out << token << "\n";
    ASSERT_TRUE(out.flush()) << path << "." << model << " cannot be written";
}

class FormatFidelity : public ::testing::TestWithParam<int> {};

TEST_P(FormatFidelity, MeanKlStaysWithinWhatWasMeasured) {
    const char* const starts[] = {"SmolLM2-135M", "qwen2.5-coder-0.5b"};
    const std::string path = testing::find_model(starts[GetParam()]);
    const std::string text = testing::english_text(std::size_t{12} * (kPrompt + place()));
    // The bounds are of this text; another one's KL may be twice as large.
    if (path.empty() || testing::find_data("haystack").empty()) {
        GTEST_SKIP() << testing::missing_model(starts[GetParam()]) << "; "
                     << testing::missing_data("haystack");
    }
    const auto model = Model::load(path);
    std::vector<std::int32_t> tokens = model->tokenize(text, false, false);
    ASSERT_GE(tokens.size(), static_cast<std::size_t>(place() + kPrompt + kForced));
    tokens.erase(tokens.begin(), tokens.begin() + place());
    tokens.resize(kPrompt + kForced);
    write_tokens(tokens, starts[GetParam()]);
    const std::vector<std::int32_t> next(tokens.begin() + kPrompt, tokens.end());
    tokens.resize(kPrompt);

    std::vector<Session> sessions;
    sessions.emplace_back(model);
    for (const Row& row : kRows) sessions.emplace_back(model, options_of(row));
    std::vector<Session*> all;
    for (Session& session : sessions) all.push_back(&session);
    Session::prefill(all, tokens);

    const std::vector<float> full = log_probabilities(sessions[0], next);
    std::printf("%s, %d + %d tokens\n", starts[GetParam()], kPrompt, kForced);
    for (std::size_t i = 0; i < std::size(kRows); ++i) {
        const double kl = mean_kl(full, log_probabilities(sessions[i + 1], next), kForced);
        print_row(kRows[i], sessions[i + 1], kl);
        std::fflush(stdout);
        if (place() > 0) continue;
        EXPECT_LE(kl, kRows[i].bound[GetParam()]) << kRows[i].format << " " << kRows[i].bits_k;
    }
}

INSTANTIATE_TEST_SUITE_P(Models, FormatFidelity, ::testing::Values(0, 1));

}  // namespace
}  // namespace winnow
