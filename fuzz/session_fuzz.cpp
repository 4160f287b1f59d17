// libFuzzer target: any bytes are either a session's file, whose layers can be read, or an Error.
// Checksums count as right here (FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION), or nothing behind them
// would ever be reached. `make fuzz` builds and runs it.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cache/layer_store.h"
#include "core/rope.h"
#include "engine/layer_state.h"
#include "engine/session_sections.h"
#include "winnow/error.h"

// The engine has this one; its message offers the nearest name.
const winnow::Format& winnow::find_format(const std::string& name) {
    for (const Format* format : formats()) {
        if (name == format->name) {
            return *format;
        }
    }
    throw usage_error("there is no format of that name");
}

namespace {

using namespace winnow;

void read_rows(const LayerStore& store) {
    const auto d = static_cast<std::size_t>(store.layout().spec.head_dim);
    for (int g = 0; g < store.kv_heads(); ++g) {
        const auto n = static_cast<std::size_t>(store.tokens(g));
        std::vector<f16> k(n * d), v(n * d);
        std::vector<std::int32_t> positions(n);
        store.read(g, k.data(), v.data(), positions.data());
    }
}

void read_layer(const SessionSections& file, int layer) {
    Archive archive = file.layer(layer);
    StoreShape shape;
    shape.transfer(archive);
    RopeParams params;
    params.dims = shape.tiers[0].spec.head_dim;
    params.original_context = 4096;
    const RopeTable rope(params);
    for (SpanLayout& tier : shape.tiers) {
        tier.rope = &rope;
    }
    LayerStore store(shape.tiers, shape.kv_heads, shape.query_heads, shape.memory, nullptr,
                     nullptr);
    LayerState state;
    state.transfer(archive, shape.kv_heads, file.head().position);
    store.transfer(archive, file.head().position);
    archive.end();
    read_rows(store);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const SessionSections file(std::as_bytes(std::span(data, size)), "fuzz");
        for (int layer = 0; layer < file.head().layers; ++layer) {
            read_layer(file, layer);
        }
    } catch (const Error&) {
    }
    return 0;
}
