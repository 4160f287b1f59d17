// What `winnow tune` found for a model: how `mixed` splits bytes over layers, tokens and bits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/plan.h"

namespace winnow {

/// What one byte budget gave on the texts that were tried; KL in nats, means over pieces.
struct ProfilePoint {
    std::uint64_t bytes = 0;
    double share = 0.0;  ///< of the full cache of the pieces' prompts
    double kl_builtin = 0.0, kl = 0.0;
    double held_out_builtin = 0.0, held_out = 0.0;  ///< on a piece that nothing was chosen by
};

struct Profile {
    std::string model_name, sha256;            ///< of the model
    std::vector<double> shares;                ///< [L] relative bytes per layer
    std::vector<std::pair<int, int>> tiers{};  ///< bits of K and V below 16, most first
    MixedSettings settings{};
    std::vector<ProfilePoint> points{};
};

/// The split that is used without a profile.
Profile builtin_profile(int layers);

std::string write_profile(const Profile& profile);
/// Throws a failure Error that names the file, the field and what would be right.
Profile read_profile(const std::string& path);

/// Where `winnow tune` leaves a model's profile and planning looks for it; "" without a home.
std::string default_profile_path(const std::string& sha256);

/// The profile that `profile` names ("" looks where tune writes, "none" is no file): sets the
/// option to the file that was used, and plans by it. `sha256` is asked for only where it is
/// needed. Does nothing for other methods. Throws a failure Error for a file that is damaged or of
/// another model.
void use_profile(Plan& plan, const Hparams& hparams, const std::function<std::string()>& sha256);

/// Plans by `profile`; bits that the options fix stay.
void apply_profile(Plan& plan, const Hparams& hparams, const Profile& profile);

}  // namespace winnow
