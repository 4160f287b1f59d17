// `winnow tune`: a search by coordinates over what a profile holds. Every candidate is measured at
// all budgets on two pieces of text, and the mean logarithm of the KL decides: at a single budget
// of a single piece, splits that differ by less than a tenth change places from text to text.
#include "winnow/tune.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "engine/budget.h"
#include "engine/profile.h"
#include "engine/trials.h"
#include "winnow/error.h"

namespace winnow {

namespace {

constexpr int kPieces = 3;  // the last one chooses nothing
constexpr int kLeastPiece = 320;
constexpr int kBands = 6;
constexpr double kBandStep = 1.35;
constexpr double kLeastGain = 0.005;  // of the mean logarithm: less is chance
constexpr double kLeastKl = 1e-7;
constexpr int kAboutCandidates = 32;

using Tiers = std::vector<std::pair<int, int>>;

const std::vector<Tiers>& ladders() {
    static const std::vector<Tiers> all{
        {{8, 8}, {4, 4}, {3, 2}, {2, 2}}, {{8, 4}, {4, 3}, {3, 2}, {2, 2}},
        {{8, 4}, {4, 4}, {3, 3}, {2, 2}}, {{8, 8}, {4, 4}, {3, 3}, {2, 2}},
        {{8, 8}, {4, 4}, {2, 3}, {2, 2}}, {{8, 8}, {4, 4}, {2, 2}}};
    return all;
}

/// A point of the search.
struct Candidate {
    Tiers tiers = builtin_tiers();
    MixedSettings settings{};
    std::vector<double> bands = std::vector<double>(kBands, 1.0);  // over layers, first to last

    std::string name() const {
        std::string text;
        for (const auto& [k, v] : tiers) {
            text += (text.empty() ? "" : ",") + std::to_string(k) + ":" + std::to_string(v);
        }
        char number[48];
        std::snprintf(number, sizeof number, " score %.4g value %.4g bands", settings.score_error,
                      settings.value_error);
        text += number;
        for (const double band : bands) {
            std::snprintf(number, sizeof number, " %.4g", band);
            text += number;
        }
        return text;
    }

    // The built-in shares, times the bands joined by lines.
    Profile profile(int layers) const {
        Profile result = builtin_profile(layers);
        result.tiers = tiers;
        result.settings = settings;
        for (int layer = 0; layer < layers; ++layer) {
            const double at =
                layers == 1 ? 0.0 : static_cast<double>(layer) * (kBands - 1) / (layers - 1);
            const int band = std::min(static_cast<int>(at), kBands - 2);
            const double part = at - band;
            result.shares[layer] *= bands[band] * (1.0 - part) + bands[band + 1] * part;
        }
        return result;
    }
};

class Tuner {
  public:
    Tuner(std::shared_ptr<const Model> model, std::span<const std::int32_t> tokens,
          const TuneOptions& options, const std::map<std::string, double>& known,
          const std::function<bool(const TuneProgress&)>& progress)
        : model_(std::move(model)), known_(known), progress_(progress) {
        const int piece = std::min(options.prompt_tokens + options.forced,
                                   static_cast<int>(tokens.size()) / kPieces);
        if (piece < kLeastPiece || options.forced < 1 || options.forced > piece / 2) {
            throw usage_error("tuning needs a text of at least " +
                              std::to_string(kPieces * kLeastPiece) + " tokens, or more where " +
                              "more are forced; this one has " + std::to_string(tokens.size()) +
                              ".");
        }
        for (int i = 0; i < kPieces; ++i) {
            pieces_.push_back({.first = tokens.begin() + static_cast<std::ptrdiff_t>(i) * piece,
                               .trials = nullptr});
        }
        piece_ = piece;
        forced_ = options.forced;
        find_budgets(options);
    }

    std::string run() {
        Candidate best = search();
        Profile found = best.profile(layers());
        measure(found, best);
        double gain = 0.0;
        for (const ProfilePoint& at : found.points) {
            gain += std::log(at.held_out_builtin / at.held_out);
        }
        if (gain <= 0.0) {
            const Candidate plain;
            found = plain.profile(layers());
            measure(found, plain);
        }
        found.model_name = model_->info().name;
        found.sha256 = model_->sha256();
        return write_profile(found);
    }

  private:
    struct Piece {
        std::span<const std::int32_t>::iterator first;
        std::unique_ptr<Trials> trials;
    };
    int layers() const { return model_->info().layers; }

    Plan plan_of(const Candidate& candidate, std::uint64_t bytes) const {
        CacheOptions options;
        options.method = "mixed";
        options.kv_budget = std::to_string(bytes);
        options.profile = "none";
        const Hparams& h = model_->impl().hparams;
        Plan plan = make_plan(options, h, model_->impl().rope);
        apply_profile(plan, h, candidate.profile(layers()));
        return plan;
    }

    // Budgets too small for every ladder are left out.
    void find_budgets(const TuneOptions& options) {
        const auto full = static_cast<double>(
            model_->info().full_cache_bytes(static_cast<std::uint64_t>(piece_ - forced_)));
        std::string why = "no budget was given.";
        for (const double share : options.shares) {
            const auto bytes = static_cast<std::uint64_t>(std::max(1.0, full * share));
            try {
                Candidate least;
                least.bands.assign(kBands, 1.0 / (kBandStep * kBandStep));
                least.bands[0] = kBandStep * kBandStep;
                for (const Tiers& ladder : ladders()) {
                    least.tiers = ladder;
                    plan_of(least, bytes);
                }
                budgets_.push_back({.bytes = bytes, .share = share});
            } catch (const Error& error) {
                if (error.kind() != ErrorKind::usage) {
                    throw;
                }
                why = error.what();
            }
        }
        if (budgets_.empty()) {
            throw usage_error("no budget is large enough to be tuned on this text: " + why);
        }
    }

    Trials& trials_of(int piece) {
        Piece& at = pieces_[static_cast<std::size_t>(piece)];
        if (at.trials == nullptr) {
            const std::span tokens(at.first, static_cast<std::size_t>(piece_));
            at.trials = std::make_unique<Trials>(model_, tokens, forced_, [&](const Progress& p) {
                const double layer = p.layer + static_cast<double>(p.tokens) / p.tokens_total;
                return tell(nullptr, layer / p.layers);
            });
        }
        return *at.trials;
    }

    bool tell(const TuneTrial* trial, double prefill) const {
        return !progress_ || progress_({.trial = trial,
                                        .done = done_,
                                        .trials = std::max(expected_, done_),
                                        .prefill = prefill});
    }

    double kl(const Candidate& candidate, const ProfilePoint& at, int piece) {
        TuneTrial trial{.name = std::to_string(at.bytes) + " bytes, piece " +
                                std::to_string(piece) + ": " + candidate.name()};
        const auto known = known_.find(trial.name);
        if (known != known_.end()) {
            ++done_;
            return known->second;
        }
        trial.kl = std::max(trials_of(piece).kl(plan_of(candidate, at.bytes)), kLeastKl);
        known_[trial.name] = trial.kl;
        ++done_;
        if (!tell(&trial, 1.0)) {
            throw Error(ErrorKind::stopped, "Stopped.");
        }
        return trial.kl;
    }

    // The mean logarithm of the KL over budgets and the choosing pieces.
    double loss(const Candidate& candidate) {
        double sum = 0.0;
        for (const ProfilePoint& at : budgets_) {
            for (int piece = 0; piece + 1 < kPieces; ++piece) {
                sum += std::log(kl(candidate, at, piece));
            }
        }
        return sum / static_cast<double>(budgets_.size() * (kPieces - 1));
    }

    bool take_if_better(const Candidate& candidate) {
        const double found = loss(candidate);
        if (found > best_loss_ - kLeastGain) {
            return false;
        }
        best_ = candidate;
        best_loss_ = found;
        return true;
    }

    // Goes on by `factor` while that helps, at most twice; else the other way.
    void walk(const std::function<double&(Candidate&)>& field, double factor) {
        for (const double step : {factor, 1.0 / factor}) {
            bool any = false;
            for (int i = 0; i < 2; ++i) {
                Candidate next = best_;
                field(next) *= step;
                if (!take_if_better(next)) {
                    break;
                }
                any = true;
            }
            if (any) {
                return;
            }
        }
    }

    Candidate search() {
        expected_ = static_cast<int>(budgets_.size()) * (kAboutCandidates * (kPieces - 1) + 2);
        best_loss_ = loss(best_);
        for (const Tiers& ladder : ladders()) {
            Candidate next = best_;
            next.tiers = ladder;
            take_if_better(next);
        }
        walk([](Candidate& c) -> double& { return c.settings.score_error; }, 2.0);
        walk([](Candidate& c) -> double& { return c.settings.value_error; }, 2.0);
        for (int band = 0; band < kBands; ++band) {
            walk([band](Candidate& c) -> double& { return c.bands[band]; }, kBandStep);
        }
        return best_;
    }

    // What a split and the built-in one give at each budget, on the choosing pieces and apart.
    void measure(Profile& profile, const Candidate& candidate) {
        profile.points = budgets_;
        for (ProfilePoint& at : profile.points) {
            for (int piece = 0; piece + 1 < kPieces; ++piece) {
                at.kl_builtin += kl(Candidate{}, at, piece) / (kPieces - 1);
                at.kl += kl(candidate, at, piece) / (kPieces - 1);
            }
            at.held_out_builtin = kl(Candidate{}, at, kPieces - 1);
            at.held_out = kl(candidate, at, kPieces - 1);
        }
    }

    std::shared_ptr<const Model> model_;
    std::map<std::string, double> known_;
    const std::function<bool(const TuneProgress&)>& progress_;
    std::vector<Piece> pieces_;
    int piece_ = 0, forced_ = 0;
    std::vector<ProfilePoint> budgets_;
    int done_ = 0, expected_ = 0;
    Candidate best_;
    double best_loss_ = 0.0;
};

}  // namespace

std::string tune_profile(const std::shared_ptr<const Model>& model,
                         std::span<const std::int32_t> tokens, const TuneOptions& options,
                         const std::map<std::string, double>& known,
                         const std::function<bool(const TuneProgress&)>& progress) {
    return Tuner(model, tokens, options, known, progress).run();
}

std::string profile_path(const Model& model) {
    return default_profile_path(model.sha256());
}

}  // namespace winnow
