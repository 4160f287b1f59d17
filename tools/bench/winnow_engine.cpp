#include "bench/winnow_engine.h"

#include <vector>

#include "cli/signals.h"

namespace winnow::bench {
namespace {

class WinnowEngine : public Engine {
  public:
    WinnowEngine(std::shared_ptr<const Model> model, const CacheOptions& cache,
                 const SessionOptions& options)
        : model_(std::move(model)), cache_(cache), options_(options) {
        reset();
    }

    void reset() override {
        sessions_.clear();
        prompt_ = std::make_unique<Session>(model_, cache_, options_);
    }
    void prefill(std::span<const std::int32_t> prompt) override {
        prompt_->prefill(prompt, [](const Progress&) { return !cli::interrupted(); });
        kv_bytes_ = prompt_->stats().bytes;
    }
    void rewind(int sessions) override {
        sessions_.clear();
        for (int i = 0; i < sessions; ++i) sessions_.push_back(prompt_->clone());
        batch_.clear();
        for (Session& session : sessions_) batch_.push_back(&session);
    }
    void step(std::span<const std::int32_t> tokens) override {
        cli::throw_if_interrupted();
        Session::decode(batch_, tokens);
    }

    std::uint64_t kv_bytes() const override { return kv_bytes_; }
    bool tells_split() const override { return true; }
    Split split() const override {
        // Every session of a step carries the whole step's time.
        const SessionTiming now = sessions_.front().timing();
        const SessionTiming before = prompt_->timing();
        return {now.decode_attention_ms - before.decode_attention_ms,
                now.decode_graph_ms - before.decode_graph_ms};
    }
    double compress_share() const override {
        const SessionTiming timing = prompt_->timing();
        return timing.prefill_ms > 0.0 ? timing.compress_ms / timing.prefill_ms : 0.0;
    }

  private:
    std::shared_ptr<const Model> model_;
    CacheOptions cache_;
    SessionOptions options_;
    std::unique_ptr<Session> prompt_;
    std::vector<Session> sessions_;
    std::vector<Session*> batch_;
    std::uint64_t kv_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Engine> make_winnow_engine(std::shared_ptr<const Model> model,
                                           const CacheOptions& cache,
                                           const SessionOptions& options) {
    return std::make_unique<WinnowEngine>(std::move(model), cache, options);
}

}  // namespace winnow::bench
