// `winnow inspect --html`: a prompt's text coloured by what the cache kept of it.
#pragma once

#include <string>
#include <vector>

namespace winnow::report {

/// What the page shows. No engine is needed for it.
struct KeptPage {
    std::string title;                ///< "snapkv 512, kivi at 4 bits"
    std::vector<std::string> facts;   ///< name and value in turn: model, sha256, version ...
    std::vector<std::string> pieces;  ///< [T] texts of the tokens, whole UTF-8
    struct Head {
        std::vector<int> positions;  ///< ascending, below T
        std::vector<float> bits;     ///< parallel; 16 where it is shorter
    };
    struct Layer {
        int budget = 0;  ///< tokens per kv head
        std::vector<Head> heads;
    };
    std::vector<Layer> layers;
};

/// One self-contained page: text, a slider over the layers, a choice of head. Colour is the mean
/// precision of those that keep a token, its strength the share of (layer, head) pairs that do.
std::string kept_html(const KeptPage& page);

}  // namespace winnow::report
