#include "engine/output_projection.h"

#include <string>
#include <vector>

#include "kernels/dense.h"
#include "winnow/error.h"

namespace winnow {

Buffer<float> output_projection(const Model::Impl& model, int layer, MemoryMeter* meter) {
    const ggml_tensor* wo = model.weights->weights().layers[layer].wo;  // [E][H*D]
    const auto columns = static_cast<std::size_t>(wo->ne[0]);
    const auto rows = static_cast<std::size_t>(wo->ne[1]);
    const auto* stored = static_cast<const std::uint8_t*>(model.weights->plain_data(wo));
    const auto widen_row = ggml_get_type_traits(wo->type)->to_float;
    if (stored == nullptr || (wo->type != GGML_TYPE_F32 && widen_row == nullptr)) {
        throw failure("the tensor '" + std::string(wo->name) + "' is stored as " +
                      ggml_type_name(wo->type) +
                      ", which cannot be read row by row; use a --method other than criticalkv.");
    }
    const std::size_t width = (rows + kColumnBlock - 1) / kColumnBlock * kColumnBlock;
    const std::size_t row_bytes = ggml_row_size(wo->type, wo->ne[0]);
    Buffer<float> out(meter, columns * width, "the output projection");
    std::vector<float> row(columns);
    for (std::size_t e = 0; e < rows; ++e) {
        const std::uint8_t* from = stored + e * row_bytes;
        if (wo->type == GGML_TYPE_F32) {
            std::memcpy(row.data(), from, row_bytes);
        } else {
            widen_row(from, row.data(), wo->ne[0]);
        }
        for (std::size_t c = 0; c < columns; ++c) {
            out[c * width + e] = row[c];
        }
    }
    return out;
}

}  // namespace winnow
