#include "cache/query_moments.h"

#include <algorithm>

#include "core/rope.h"
#include "core/threads.h"
#include "kernels/dense.h"

namespace winnow {

QueryMoments::QueryMoments(MemoryMeter* meter, int heads, int head_dim, int skip)
    : heads_(heads), dims_(head_dim), skip_(skip) {
    sums_ = Buffer<float>(meter, head_floats() * static_cast<std::size_t>(heads),
                          "the mean and covariance of queries");
}

void QueryMoments::add(const float* q, int count, int position, const RopeTable& rope,
                       int threads) {
    const int left_out = std::clamp(skip_ - position, 0, count);
    const std::size_t d = static_cast<std::size_t>(dims_);
    const bool first = count_ == 0;
    parallel_for(threads, heads_, [&](int h, int) {
        std::vector<float> row(d);
        float* offset = sums_.data() + h * head_floats();
        float* sum = offset + d;
        for (int i = left_out; i < count; ++i) {
            std::copy_n(q + (static_cast<std::size_t>(i) * heads_ + h) * d, d, row.data());
            rope.unrotate(row.data(), position + i);
            if (first && i == left_out) {
                std::copy_n(row.data(), d, offset);
            }
            add_scaled(row.data(), offset, dims_, -1.0F);
            add_scaled(sum, row.data(), dims_, 1.0F);
            float* products = sum + d;
            for (int c = 0; c < dims_; products += dims_ - c, ++c) {
                add_scaled(products, row.data() + c, dims_ - c, row[c]);
            }
        }
    });
    count_ += count - left_out;
}

void QueryMoments::read(std::vector<float>& mean, std::vector<float>& covariance) const {
    const std::size_t d = static_cast<std::size_t>(dims_);
    mean.assign(heads_ * d, 0.0F);
    covariance.assign(heads_ * d * d, 0.0F);
    for (int h = 0; h < heads_ && count_ > 0; ++h) {
        const float* offset = sums_.data() + h * head_floats();
        const float* sum = offset + d;
        const float* products = sum + d;
        const double n = count_;
        for (std::size_t i = 0; i < d; ++i) {
            mean[h * d + i] = static_cast<float>(offset[i] + sum[i] / n);
            for (std::size_t j = i; j < d; ++j) {
                const double x = *products++ / n - (sum[i] / n) * (sum[j] / n);
                covariance[(h * d + i) * d + j] = static_cast<float>(x);
                covariance[(h * d + j) * d + i] = static_cast<float>(x);
            }
        }
    }
}

QueryMoments QueryMoments::clone(MemoryMeter* meter) const {
    QueryMoments copy;
    copy.heads_ = heads_;
    copy.dims_ = dims_;
    copy.skip_ = skip_;
    copy.count_ = count_;
    copy.sums_ = sums_.clone(meter);
    return copy;
}

}  // namespace winnow
