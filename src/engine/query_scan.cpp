#include "engine/query_scan.h"

#include <algorithm>

namespace winnow {

namespace {

constexpr int kQueriesAtOnce = 8;

int padded(int n) {
    return (n + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
}

}  // namespace

QueryScan::QueryScan(const Session::Impl& session, const LayerView& view, int g)
    : head_(&view.kv->head(g)) {
    const Hparams& h = session.hparams();
    dims_ = h.head_dim;
    group_ = h.query_heads / h.kv_heads;
    window_ = view.window;
    rows_ = window_ * group_;
    most_ = kQueriesAtOnce * group_;
    width_ = static_cast<std::size_t>(padded(dims_));
    queries_.resize(static_cast<std::size_t>(rows_) * dims_);
    for (int i = 0; i < window_; ++i) {
        const std::size_t from =
            (static_cast<std::size_t>(i) * h.query_heads + static_cast<std::size_t>(g) * group_) *
            dims_;
        std::copy_n(view.window_queries.data() + from, static_cast<std::size_t>(group_) * dims_,
                    queries_.data() + static_cast<std::size_t>(i) * group_ * dims_);
    }
    scale_by(queries_.data(), static_cast<int>(queries_.size()),
             1.0F / std::sqrt(static_cast<float>(dims_)));
    const int block = std::min(kBlockTokens, padded(tokens()));
    keys_.resize(static_cast<std::size_t>(dims_) * block);
    scores_.resize(static_cast<std::size_t>(most_) * block);
}

void QueryScan::load(int first) {
    first_ = first;
    count_ = std::min(kBlockTokens, tokens() - first);
    values_here_ = transposed_here_ = false;
    widen_transposed(head_->k + static_cast<std::size_t>(first) * dims_, count_, dims_,
                     keys_.data(), padded(count_));
}

ScanBlock QueryScan::scores_of(int row) {
    const auto columns = static_cast<std::size_t>(padded(count_));
    const int rows = std::min(most_, rows_ - row);
    multiply(query(row), static_cast<std::size_t>(dims_), keys_.data(), columns, scores_.data(),
             columns, rows, padded(count_), dims_, false);
    return {.first = first_,
            .count = count_,
            .row = row,
            .rows = rows,
            .columns = columns,
            .scores = scores_.data(),
            .newest = tokens() - window_,
            .group = group_};
}

const float* QueryScan::values() {
    if (!values_here_) {
        values_.resize(static_cast<std::size_t>(std::min(kBlockTokens, tokens())) * width_, 0.0F);
        for (int t = 0; t < count_; ++t) {
            widen(head_->v + static_cast<std::size_t>(first_ + t) * dims_,
                  values_.data() + static_cast<std::size_t>(t) * width_,
                  static_cast<std::size_t>(dims_));
        }
        values_here_ = true;
    }
    return values_.data();
}

const float* QueryScan::values_transposed() {
    if (!transposed_here_) {
        transposed_.resize(keys_.size());
        widen_transposed(head_->v + static_cast<std::size_t>(first_) * dims_, count_, dims_,
                         transposed_.data(), padded(count_));
        transposed_here_ = true;
    }
    return transposed_.data();
}

}  // namespace winnow
