// The file of `winnow calibrate`: kvquant's levels for one model, as JSON.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/plan.h"

namespace winnow {

class Model;

/// Levels [2^bits] of one layer, ascending and each a value that half precision holds.
struct LayerLevels {
    std::vector<float> k, v;
};

struct CodebookFile {
    std::string model_name;
    std::string sha256;                              ///< of the model's file, 64 hex digits
    int tokens = 0;                                  ///< of the text it was fitted on
    std::map<int, std::vector<LayerLevels>> levels;  ///< bits, then [L]
};

std::string write_codebook(const CodebookFile& codebook);

/// Reads and checks a whole file. Throws a failure Error that names the file and the field.
CodebookFile read_codebook(const std::string& path);

/// Gives the layers of `plan` their levels from options.kvquant_codebook; does nothing where that
/// is empty. Throws a failure Error where the file is of another model or lacks a width.
void use_codebook(Plan& plan, const Model& model);

}  // namespace winnow
