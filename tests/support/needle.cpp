#include "support/needle.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/compress.h"
#include "engine/session_impl.h"

namespace winnow::testing {

namespace {

std::string detokenize(const Model& model, const std::vector<std::int32_t>& tokens) {
    std::string text;
    for (const std::int32_t token : tokens) {
        text += model.piece(token);
    }
    return text;
}

// Behind the last sentence that ends at or before `at`; the start where there is none.
std::size_t sentence_end(const std::string& text, std::size_t at) {
    for (std::size_t end = std::min(at, text.size()); end > 0; --end) {
        const bool stop = std::string_view(".!?").find(text[end - 1]) != std::string_view::npos;
        if (stop && (end == text.size() || text[end] == ' ' || text[end] == '\n')) {
            return end;
        }
    }
    return 0;
}

}  // namespace

std::string read_haystack(const std::string& folder, std::size_t most_bytes) {
    std::vector<std::filesystem::path> files;
    if (std::filesystem::is_directory(folder)) {
        for (const auto& entry : std::filesystem::directory_iterator(folder)) {
            if (entry.path().extension() == ".txt") {
                files.push_back(entry.path());
            }
        }
    }
    std::sort(files.begin(), files.end());
    std::string text;
    for (const std::filesystem::path& file : files) {
        std::ifstream in(file, std::ios::binary);
        text += text.empty() ? "" : "\n";
        text.append(std::istreambuf_iterator<char>(in), {});
        if (text.size() >= most_bytes) {
            break;
        }
    }
    return text.substr(0, most_bytes);
}

NeedlePrompt needle_prompt(const Model& model, const std::string& haystack, int length,
                           double depth, const std::string& key, const std::string& number) {
    constexpr std::size_t kSkip = 1000;
    std::vector<std::int32_t> tokens = model.tokenize(haystack, false, false);
    const std::size_t wanted = static_cast<std::size_t>(length - 120);
    if (tokens.size() < kSkip + wanted) {
        throw failure("the haystack has " + std::to_string(tokens.size()) + " tokens, but " +
                      std::to_string(kSkip + wanted) + " are needed.");
    }
    tokens.assign(tokens.begin() + kSkip, tokens.begin() + kSkip + static_cast<long>(wanted));
    const std::vector<std::int32_t> before(
        tokens.begin(), tokens.begin() + static_cast<long>(depth * static_cast<double>(wanted)));
    std::string context = detokenize(model, tokens);
    const std::size_t at = sentence_end(context, detokenize(model, before).size());
    const std::string needle =
        "One of the special magic numbers for " + key + " is: " + number + ".";
    context.insert(at, at == 0 ? needle + " " : " " + needle);

    const std::array<ChatMessage, 1> messages{
        {{"user", "Read the following text carefully and answer the question at the end.\n\n" +
                      context + "\n\nWhat is the special magic number for " + key +
                      " mentioned in the provided text?"}}};
    const std::string text = model.apply_chat_template(messages) + "The special magic number for " +
                             key + " mentioned in the provided text is";
    return {model.tokenize(text, false, true), number};
}

FullPrompt::FullPrompt(std::shared_ptr<const Model> model, const std::vector<std::int32_t>& tokens,
                       int window)
    : model_(std::move(model)), full_(model_) {
    Session::Impl& s = full_.impl();
    s.plan.memory = {.window = window, .column_sums = true};
    for (int layer = 0; layer < s.hparams().layers; ++layer) {
        s.layers[layer].store = s.new_store(layer);
    }
    full_.prefill(tokens);
}

Session FullPrompt::apply(const CacheOptions& options) {
    Session::Impl& from = full_.impl();
    Session session(model_, options);
    Session::Impl& to = session.impl();
    const Hparams& h = to.hparams();
    const int tokens = from.position;
    const std::size_t row = static_cast<std::size_t>(h.query_heads) * h.head_dim;
    to.budget_tokens = tokens;
    for (int layer = 0; layer < h.layers; ++layer) {
        LayerStore& source = *from.layers[layer].store;
        LayerKv kv(&to.work, std::vector<int>(h.kv_heads, 0), tokens, h.head_dim);
        std::vector<float> sums;
        for (int g = 0; g < h.kv_heads; ++g) {
            const LayerKv::Head& head = kv.head(g);
            source.read(g, head.k, head.v, head.positions);
            const float* rows = source.sums(g);
            for (int r = 0; r < h.query_heads / h.kv_heads; ++r) {
                const float* sum = rows + r * source.sums_stride(g);
                sums.insert(sums.end(), sum, sum + tokens);
            }
        }
        std::vector<float> queries(static_cast<std::size_t>(source.queries()) * row);
        source.read_queries(queries.data());
        LayerStore& store = *to.layers[layer].store;
        const int skipped = std::max(0, source.queries() - to.plan.memory.window);
        for (int i = skipped; i < source.queries(); ++i) {
            store.push_query(queries.data() + static_cast<std::size_t>(i) * row);
        }
        LayerView view{.kv = &kv, .window = store.queries()};
        view.window_queries.resize(static_cast<std::size_t>(view.window) * row);
        store.read_queries(view.window_queries.data());
        if (store.has_sums()) {
            view.column_sums = sums.data();
            view.stride = static_cast<std::size_t>(tokens);
        }
        compress_layer(to, layer, view, tokens);
    }
    to.position = tokens;
    to.logits = from.logits;
    to.note_bytes();
    to.note_logits();
    return session;
}

std::string greedy_answer(Session& session, int most) {
    std::string text;
    for (int i = 0; i < most; ++i) {
        const std::span<const float> logits = session.logits();
        const auto token = static_cast<std::int32_t>(
            std::max_element(logits.begin(), logits.end()) - logits.begin());
        if (session.model().is_end_of_generation(token)) {
            break;
        }
        text += session.model().piece(token);
        if (i + 1 < most) {
            session.decode(token);
        }
    }
    return text;
}

}  // namespace winnow::testing
