#include "engine/codebook_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/f16.h"
#include "engine/json_file.h"
#include "winnow/error.h"
#include "winnow/winnow.h"

namespace winnow {

namespace {

using Json = JsonFile::Json;

constexpr const char* kFormat = "winnow-kvquant-codebook";
constexpr int kVersion = 1;
constexpr std::uintmax_t kMostMib = 64;
constexpr std::size_t kMostLayers = 1024;

class Reader : public JsonFile {
  public:
    explicit Reader(const std::string& path)
        : JsonFile(path, "'" + path + "'", "`winnow calibrate` writes such files.", kMostMib) {}

    std::vector<float> levels(const Json& values, int bits, const std::string& where) const {
        const std::size_t count = std::size_t{1} << bits;
        const auto all_numbers = [&] {
            return std::all_of(values.begin(), values.end(),
                               [](const Json& value) { return value.is_number(); });
        };
        if (!values.is_array() || values.size() != count || !all_numbers()) {
            throw wrong(where, std::to_string(count) + " numbers");
        }
        std::vector<float> result;
        for (const Json& value : values) {
            const auto number = static_cast<float>(value.get<double>());
            // The comparison is false for NaN.
            if (!(std::fabs(number) <= kF16Max)) throw wrong(where, "numbers within +-65504");
            result.push_back(round_to_f16(number));
        }
        if (!std::is_sorted(result.begin(), result.end())) throw wrong(where, "in ascending order");
        return result;
    }

    std::vector<LayerLevels> layers(const Json& list, int bits) const {
        const std::string where = "levels." + std::to_string(bits);
        if (!list.is_array() || list.empty() || list.size() > kMostLayers) {
            throw wrong(where, "a list of 1 to 1024 layers");
        }
        std::vector<LayerLevels> result;
        for (const Json& layer : list) {
            const std::string at = where + "[" + std::to_string(result.size()) + "]";
            if (!layer.is_object() || !layer.contains("k") || !layer.contains("v")) {
                throw wrong(at, "an object with 'k' and 'v'");
            }
            result.push_back({.k = levels(layer.at("k"), bits, at + ".k"),
                              .v = levels(layer.at("v"), bits, at + ".v")});
        }
        return result;
    }
};

Json numbers(const std::vector<float>& values) {
    Json list = Json::array();
    for (const float value : values) list.push_back(value);
    return list;
}

const LayerLevels& layer_of(const CodebookFile& file, const std::string& path, int bits,
                            std::size_t layer, std::size_t layers) {
    const auto found = file.levels.find(bits);
    if (found == file.levels.end()) {
        throw failure("'" + path + "' has no levels for " + std::to_string(bits) +
                      " bits; `winnow calibrate` fits 2, 3, 4 and 8.");
    }
    if (found->second.size() != layers) {
        throw failure("'" + path + "' has levels for " + std::to_string(found->second.size()) +
                      " layers, but the model has " + std::to_string(layers) + ".");
    }
    return found->second[layer];
}

}  // namespace

std::string write_codebook(const CodebookFile& codebook) {
    Json json{{"format", kFormat},
              {"version", kVersion},
              {"model", {{"name", codebook.model_name}, {"sha256", codebook.sha256}}},
              {"tokens", codebook.tokens},
              {"levels", Json::object()}};
    for (const auto& [bits, layers] : codebook.levels) {
        Json list = Json::array();
        for (const LayerLevels& layer : layers) {
            list.push_back({{"k", numbers(layer.k)}, {"v", numbers(layer.v)}});
        }
        json["levels"][std::to_string(bits)] = std::move(list);
    }
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

CodebookFile read_codebook(const std::string& path) {
    const Reader reader(path);
    const Json json = reader.parse();
    if (reader.text(json, "format") != kFormat) {
        throw reader.wrong("format", std::string("'") + kFormat + "'");
    }
    const Json& version = reader.member(json, "version");
    if (!version.is_number_integer() || version.get<std::int64_t>() != kVersion) {
        throw reader.wrong("version", std::to_string(kVersion));
    }
    CodebookFile file;
    const Json& model = reader.member(json, "model");
    if (!model.is_object()) throw reader.wrong("model", "an object");
    file.model_name = reader.text(model, "name");
    file.sha256 = reader.text(model, "sha256");
    const Json& levels = reader.member(json, "levels");
    if (!levels.is_object()) throw reader.wrong("levels", "an object");
    for (const int bits : {2, 3, 4, 8}) {
        const auto found = levels.find(std::to_string(bits));
        if (found != levels.end()) file.levels[bits] = reader.layers(*found, bits);
    }
    return file;
}

void use_codebook(Plan& plan, const Model& model) {
    const std::string& path = plan.options.kvquant_codebook;
    if (path.empty()) return;
    const CodebookFile file = read_codebook(path);
    if (file.sha256 != model.sha256()) {
        throw failure("'" + path + "' was fitted on another model, '" + file.model_name +
                      "' with the sha256 " + file.sha256.substr(0, 64) + "; this one has " +
                      model.sha256() + ". Run `winnow calibrate` on it.");
    }
    for (std::size_t i = 0; i < plan.layers.size(); ++i) {
        const FormatSpec& spec = plan.layers[i].layout.spec;
        std::vector<float>& side = plan.layers[i].side_data;
        side.clear();
        if (spec.bits_k < 16) {
            side = layer_of(file, path, spec.bits_k, i, plan.layers.size()).k;
        }
        if (spec.bits_v < 16) {
            const LayerLevels& layer = layer_of(file, path, spec.bits_v, i, plan.layers.size());
            side.insert(side.end(), layer.v.begin(), layer.v.end());
        }
    }
}

}  // namespace winnow
