#include "engine/profile.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/budget.h"
#include "engine/json_file.h"
#include "engine/model_hash.h"
#include "winnow/error.h"

namespace winnow {

namespace {

namespace fs = std::filesystem;
using Json = JsonFile::Json;

constexpr const char* kFormat = "winnow-profile";
constexpr int kVersion = 1;
constexpr std::uintmax_t kMostMib = 1;
constexpr std::size_t kMostLayers = 1024;
constexpr std::size_t kMostTiers = 8;

class Reader : public JsonFile {
  public:
    explicit Reader(const std::string& path)
        : JsonFile(path, "the profile '" + path + "'",
                   "run `winnow tune` again, or give --profile none.", kMostMib) {}

    // The comparisons are false for NaN.
    double number(const Json& value, const std::string& field, double low, double high) const {
        const double x = value.is_number() ? value.get<double>() : std::nan("");
        if (!(x >= low && x <= high)) {
            throw wrong(field, "a number from " + shown(low) + " to " + shown(high));
        }
        return x;
    }
    std::vector<double> shares(const Json& list) const {
        if (!list.is_array() || list.empty() || list.size() > kMostLayers) {
            throw wrong("shares", "a list of 1 to 1024 numbers, one per layer");
        }
        std::vector<double> result;
        for (const Json& value : list) {
            result.push_back(
                number(value, "shares[" + std::to_string(result.size()) + "]", 0.01, 100.0));
        }
        return result;
    }
    std::vector<std::pair<int, int>> tiers(const Json& list) const {
        const auto bits = [](const Json& x) {
            return x.is_number_integer() && (x == 2 || x == 3 || x == 4 || x == 8);
        };
        std::vector<std::pair<int, int>> result;
        bool right = list.is_array() && !list.empty() && list.size() <= kMostTiers;
        for (std::size_t i = 0; right && i < list.size(); ++i) {
            const Json& pair = list[i];
            right = pair.is_array() && pair.size() == 2 && bits(pair[0]) && bits(pair[1]);
            if (right) {
                result.emplace_back(pair[0].get<int>(), pair[1].get<int>());
                const auto sum = [](const auto& of) { return of.first + of.second; };
                right = i == 0 || sum(result[i]) < sum(result[i - 1]);
            }
        }
        if (!right) {
            throw wrong("tiers", "1 to 8 pairs of bits of K and V out of 2, 3, 4 and 8, falling");
        }
        return result;
    }

  private:
    static std::string shown(double x) {
        std::string text = std::to_string(x);
        text.erase(text.find_last_not_of('0') + 1);
        return text.back() == '.' ? text.substr(0, text.size() - 1) : text;
    }
};

}  // namespace

Profile builtin_profile(int layers) {
    return {
        .model_name = {}, .sha256 = {}, .shares = builtin_shares(layers), .tiers = builtin_tiers()};
}

std::string write_profile(const Profile& profile) {
    Json tiers = Json::array(), points = Json::array();
    for (const auto& [k, v] : profile.tiers) {
        tiers.push_back({k, v});
    }
    for (const ProfilePoint& at : profile.points) {
        points.push_back({{"bytes", at.bytes},
                          {"share", at.share},
                          {"kl_builtin", at.kl_builtin},
                          {"kl", at.kl},
                          {"held_out_kl_builtin", at.held_out_builtin},
                          {"held_out_kl", at.held_out}});
    }
    const Json json{{"format", kFormat},
                    {"version", kVersion},
                    {"model", {{"name", profile.model_name}, {"sha256", profile.sha256}}},
                    {"shares", profile.shares},
                    {"tiers", std::move(tiers)},
                    {"score_error", profile.settings.score_error},
                    {"value_error", profile.settings.value_error},
                    {"points", std::move(points)}};
    return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Profile read_profile(const std::string& path) {
    const Reader reader(path);
    const Json json = reader.parse();
    if (reader.text(json, "format") != kFormat) {
        throw reader.wrong("format", std::string("'") + kFormat + "'");
    }
    const Json& version = reader.member(json, "version");
    if (!version.is_number_integer() || version.get<std::int64_t>() != kVersion) {
        throw reader.wrong("version", std::to_string(kVersion));
    }
    const Json& model = reader.member(json, "model");
    if (!model.is_object()) {
        throw reader.wrong("model", "an object");
    }
    Profile profile{.model_name = reader.text(model, "name"),
                    .sha256 = reader.text(model, "sha256"),
                    .shares = reader.shares(reader.member(json, "shares")),
                    .tiers = reader.tiers(reader.member(json, "tiers"))};
    profile.settings = {
        .score_error = reader.number(reader.member(json, "score_error"), "score_error", 0.0, 1e6),
        .value_error = reader.number(reader.member(json, "value_error"), "value_error", 0.0, 1e6)};
    return profile;
}

std::string default_profile_path(const std::string& sha256) {
    const fs::path folder = cache_folder();
    return folder.empty() ? "" : (folder / "profiles" / (sha256 + ".json")).string();
}

namespace {

// Whether tune has ever left a profile: hashing a model is not worth it where it has not.
bool any_profile() {
    const fs::path folder = cache_folder();
    std::error_code error;
    return !folder.empty() && fs::is_directory(folder / "profiles", error) &&
           !fs::is_empty(folder / "profiles", error);
}

}  // namespace

void use_profile(Plan& plan, const Hparams& hparams, const std::function<std::string()>& sha256) {
    std::string& path = plan.options.profile;
    if (!plan.is_mixed() || path == "none") {
        return;
    }
    if (path.empty()) {
        const std::string left = any_profile() ? default_profile_path(sha256()) : "";
        std::error_code error;
        if (left.empty() || !fs::exists(left, error)) {
            path = "none";
            return;
        }
        path = left;
    }
    const Profile profile = read_profile(path);
    if (const std::string sum = sha256(); profile.sha256 != sum) {
        throw failure("the profile '" + path + "' is of another model, '" + profile.model_name +
                      "' with the sha256 " + profile.sha256.substr(0, 64) + "; this one has " +
                      sum + ". Run `winnow tune` on it, or give --profile none.");
    }
    if (profile.shares.size() != static_cast<std::size_t>(hparams.layers)) {
        throw failure("the profile '" + path + "' has " + std::to_string(profile.shares.size()) +
                      " shares, but the model has " + std::to_string(hparams.layers) +
                      " layers. Run `winnow tune` again, or give --profile none.");
    }
    apply_profile(plan, hparams, profile);
}

void apply_profile(Plan& plan, const Hparams& hparams, const Profile& profile) {
    plan.mixed.settings = profile.settings;
    plan.mixed.shares = profile.shares;
    if (plan.options.nbits_k == 0) {
        plan.mixed.tiers = profile.tiers;
    }
    plan_mixed(plan, hparams, mixed_bytes(plan.options, hparams));
}

}  // namespace winnow
