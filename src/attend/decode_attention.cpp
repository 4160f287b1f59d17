#include "attend/decode_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "attend/peaks.h"
#include "core/threads.h"
#include "kernels/dense.h"

namespace winnow {

extern const Format format_none;  // f16 rows: the head and tail of every span

namespace {

constexpr int kPieceTokens = 512;

}  // namespace

DecodeAttention::DecodeAttention(int threads, int query_heads, int head_dim)
    : threads_(threads),
      query_heads_(query_heads),
      head_dim_(head_dim),
      work_(threads),
      counting_(threads) {}

void DecodeAttention::attend(std::span<const DecodeItem> items, float scale) {
    plan(items);
    const int group = query_heads_ / items[0].store->kv_heads();
    const std::size_t size = static_cast<std::size_t>(group) * (head_dim_ + 2);
    partials_.resize(pieces_.size() * size);
    each_piece([&](std::size_t i, int thread) {
        run(pieces_[i], partials_.data() + i * size, scale, thread);
    });
    for (std::size_t begin = 0; begin < pieces_.size();) {
        std::size_t end = begin;
        while (end < pieces_.size() && pieces_[end].item == pieces_[begin].item &&
               pieces_[end].g == pieces_[begin].g) {
            ++end;
        }
        merge(items[pieces_[begin].item], pieces_[begin].g,
              std::span(pieces_).subspan(begin, end - begin));
        begin = end;
    }
}

// Each thread takes neighbouring pieces, since kernels ask for what follows theirs in memory; one
// that has done its own helps the others.
template <class Body>
void DecodeAttention::each_piece(const Body& body) {
    const std::size_t count = pieces_.size();
    const int team = static_cast<int>(std::min<std::size_t>(threads_, count));
    std::vector<std::atomic<std::size_t>> next(team);
    const auto begin_of = [&](int part) { return count * part / team; };
    for (int part = 0; part < team; ++part) {
        next[part] = begin_of(part);
    }
    parallel_for(team, team, [&](int own, int thread) {
        for (int other = 0; other < team; ++other) {
            const int part = (own + other) % team;
            for (std::size_t i = next[part]++; i < begin_of(part + 1); i = next[part]++) {
                body(i, thread);
            }
        }
    });
}

void DecodeAttention::plan(std::span<const DecodeItem> items) {
    pieces_.clear();
    std::size_t raw_needed = 0;
    const auto each_head = [&](auto&& visit) {
        for (std::size_t i = 0; i < items.size(); ++i) {
            for (int g = 0; g < items[i].store->kv_heads(); ++g) {
                visit(static_cast<int>(i), g, *items[i].store);
            }
        }
    };
    each_head([&](int, int g, const LayerStore& store) {
        const int group = query_heads_ / store.kv_heads();
        raw_needed += store.adds_weights() ? static_cast<std::size_t>(group) * store.tokens(g) : 0;
    });
    raw_.resize(raw_needed);
    std::size_t raw_used = 0;
    each_head([&](int i, int g, const LayerStore& store) {
        const int group = query_heads_ / store.kv_heads();
        Piece piece{.item = i, .g = g, .source = &items[i]};
        float* raw = nullptr;
        if (store.adds_weights()) {
            raw = raw_.data() + raw_used;
            piece.raw_stride = static_cast<std::size_t>(store.tokens(g));
            raw_used += static_cast<std::size_t>(group) * store.tokens(g);
        }
        for (int tier = 1; tier <= store.tiers(); ++tier) {  // by storage: tier 0 comes last
            piece.tier = tier % store.tiers();
            plan_span(piece, raw);
        }
    });
}

void DecodeAttention::plan_span(Piece piece, float* raw) {
    const LayerStore& store = *piece.source->store;
    const Span& span = store.span(piece.g, piece.tier);
    const FormatSpec& spec = store.layout(piece.tier).spec;
    if (raw != nullptr) {
        raw += store.first_of(piece.g, piece.tier);
    }
    const auto add = [&](int first, int tokens, const void* k, const void* v, bool exact) {
        if (tokens == 0) {
            return;
        }
        piece.first = first;
        piece.tokens = tokens;
        piece.k = static_cast<const std::uint8_t*>(k);
        piece.v = static_cast<const std::uint8_t*>(v);
        piece.exact = exact;
        piece.raw = raw == nullptr ? nullptr : raw + first;
        pieces_.push_back(piece);
    };
    add(0, span.head_tokens(), span.head_k(), span.head_v(), true);
    for (const Span::Tile& tile : span.tiles()) {
        const int step = spec.format->tile_tokens != nullptr
                             ? tile.tokens
                             : std::max(1, kPieceTokens / spec.group_size) * spec.group_size;
        for (int at = 0; at < tile.tokens; at += step) {
            add(span.head_tokens() + tile.first + at, std::min(step, tile.tokens - at),
                span.packed_k() + tile.k_offset + spec.format->bytes(spec, Side::key, at),
                span.packed_v() + tile.v_offset + spec.format->bytes(spec, Side::value, at), false);
        }
    }
    add(span.head_tokens() + span.packed_tokens(), span.tail_tokens(), span.tail_k(), span.tail_v(),
        true);
}

void DecodeAttention::run(const Piece& piece, float* partial, float scale, int thread) {
    const LayerStore& store = *piece.source->store;
    const int group = query_heads_ / store.kv_heads();
    const std::size_t n = static_cast<std::size_t>(piece.tokens);
    const SpanLayout& layout = store.layout(piece.tier);
    FormatSpec spec = layout.spec;
    if (piece.exact) {
        spec.format = &format_none;
        spec.bits_k = spec.bits_v = 16;
    }
    std::vector<float>& work = work_[thread];
    const std::size_t q_size = static_cast<std::size_t>(group) * head_dim_;
    work.resize(std::max(work.size(), q_size + group * n));
    float* q = work.data();
    float* scores = work.data() + q_size;
    std::copy_n(piece.source->q + static_cast<std::size_t>(piece.g) * q_size, q_size, q);
    scale_by(q, static_cast<int>(q_size), scale);

    TileView view{
        .data = piece.k, .tokens = piece.tokens, .side_data = store.side_data(piece.g, piece.tier)};
    if (!piece.exact && layout.pre_rope()) {
        std::vector<std::int32_t>& counting = counting_[thread];
        counting.resize(std::max(counting.size(), n));
        for (int t = 0; t < piece.tokens; ++t) {
            counting[static_cast<std::size_t>(t)] =
                store.span(piece.g, piece.tier).position(piece.first + t);
        }
        view.positions = counting.data();
        view.rope = layout.rope;
    }
    spec.format->dot_k(spec, view, q, group, scores, n);
    float* out = partial;
    std::fill_n(out, q_size, 0.0F);
    for (int r = 0; r < group; ++r) {
        float* row = scores + r * n;
        if (piece.raw != nullptr) {
            std::copy_n(row, n, piece.raw + r * piece.raw_stride);
        }
        const float best = max_of(row, piece.tokens);
        partial[q_size + 2 * r] = best;
        partial[q_size + 2 * r + 1] = exp_and_sum(row, piece.tokens, best);
    }
    view.data = piece.v;
    spec.format->add_v(spec, view, scores, n, group, out);
}

namespace {

// For a loss that goes with the square of attention: few high weights count for more than many low
// ones of the same sum.
void add_squares(float* sums, const float* weights, int tokens, float scale) {
    for (int t = 0; t < tokens; ++t) {
        const float weight = weights[t] * scale;
        sums[t] += weight * weight;
    }
}

}  // namespace

void DecodeAttention::merge(const DecodeItem& item, int g, std::span<const Piece> pieces) {
    const int group = query_heads_ / item.store->kv_heads();
    const std::size_t q_size = static_cast<std::size_t>(group) * head_dim_;
    const std::size_t size = q_size + 2 * group;
    const float* partials = partials_.data() + (pieces.data() - pieces_.data()) * size;
    float* sums = item.store->adds_weights() ? item.store->sums(g) : nullptr;
    for (int r = 0; r < group; ++r) {
        float best = -std::numeric_limits<float>::infinity();
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            best = std::max(best, partials[i * size + q_size + 2 * r]);
        }
        float* out = item.out + static_cast<std::size_t>(g) * q_size + r * head_dim_;
        std::fill_n(out, head_dim_, 0.0F);
        float total = 0.0F;
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            const float* partial = partials + i * size;
            const float weight = std::exp(partial[q_size + 2 * r] - best);
            total += weight * partial[q_size + 2 * r + 1];
            add_scaled(out, partial + r * head_dim_, head_dim_, weight);
        }
        scale_by(out, head_dim_, 1.0F / total);
        if (sums != nullptr) {
            float* raw = pieces[0].raw + r * pieces[0].raw_stride;
            const int tokens = item.store->tokens(g);
            exp_and_sum(raw, tokens, best);
            const LayerMemory& memory = item.store->memory();
            (memory.largest ? raise_to
             : memory.decode_squares
                 ? add_squares
                 : add_scaled)(sums + (r % item.store->sum_rows()) * item.store->sums_stride(g),
                               raw, tokens, item.factor / total);
        }
    }
}

}  // namespace winnow
