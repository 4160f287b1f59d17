#include "engine/session_file.h"

#include <algorithm>

#include "core/durable_file.h"
#include "engine/session_sections.h"
#include "engine/stats.h"
#include "winnow/error.h"
#include "winnow/session_file.h"

namespace winnow {

namespace {

// What a session has beside its head and its layers.
void transfer_state(Archive& archive, Session::Impl& session) {
    archive.value(session.budget_tokens);
    archive.list(session.logits);
    archive.value(session.hash);
    for (std::size_t* size : {&session.bytes_peak, &session.prefill_peak}) {
        std::uint64_t number = *size;
        archive.value(number);
        *size = static_cast<std::size_t>(number);
    }
    for (std::uint64_t* count : {&session.evictions, &session.repackings, &session.demotions}) {
        archive.value(*count);
    }
    // What the options were taken to mean.
    int cap = session.plan.params.cap;
    archive.value(cap);
    archive.need(cap == session.plan.params.cap, "its cap is not the one that its options give");
    MixedPlan& mixed = session.plan.mixed;
    const std::size_t layers = mixed.layer_bytes.size();
    archive.list(mixed.layer_bytes);
    archive.value(mixed.settings.score_error);
    archive.value(mixed.settings.value_error);
    archive.value(mixed.raised);
    archive.need(mixed.layer_bytes.size() == layers &&
                     std::ranges::all_of(mixed.layer_bytes, [](double b) { return b > 0.0; }),
                 "its layers' bytes are not as many as its layers");
    const auto width = static_cast<std::size_t>(session.hparams().vocabulary);
    archive.need(session.logits.size() == (session.position > 0 ? width : 0),
                 "its logits are not as many as the model has tokens");
    archive.need(session.budget_tokens >= 0, "a count is below 0");
    archive.end();
}

void transfer_layer(Archive& archive, SessionLayer& layer, std::int32_t position) {
    layer.transfer(archive, layer.store->kv_heads(), position);
    layer.store->transfer(archive, position);
    archive.end();
}

SessionHead head_of(const Session::Impl& session) {
    const ModelInfo& info = session.m().info;
    return {.winnow = version(),
            .name = info.name,
            .architecture = info.architecture,
            .sha256 = session.model->sha256(),
            .options = session.plan.options,
            .layers = session.hparams().layers,
            .position = session.position,
            .tokens = session.tokens,
            .pins = session.pins.ranges()};
}

// The first option in which two caches differ, as the command line would say it; or "".
std::string different_option(const CacheOptions& file, const CacheOptions& asked) {
    const auto has = option_texts(file), wanted = option_texts(asked);
    for (std::size_t i = 0; i < has.size(); ++i) {
        if (has[i] != wanted[i]) {
            return "--" + has[i].first + " is '" + has[i].second.substr(0, 100) + "' there and '" +
                   wanted[i].second.substr(0, 100) + "' here";
        }
    }
    return "";
}

void check_head(const SessionHead& head, const Session::Impl& session, const std::string& path) {
    const std::string where = "'" + path + "' is a session of ";
    if (head.sha256 != session.model->sha256() || head.layers != session.hparams().layers) {
        throw failure(where + "another model, '" + head.name.substr(0, 100) + "' with the sha256 " +
                      head.sha256.substr(0, 64) + "; this one has " + session.model->sha256() +
                      ".");
    }
    if (const std::string different = different_option(head.options, session.plan.options);
        !different.empty()) {
        throw failure(where + "other options: " + different + ". Give the same, or another file.");
    }
}

}  // namespace

void save_session(Session::Impl& session, const std::string& path) {
    std::vector<Archive> sections(2 + session.layers.size());
    SessionHead head = head_of(session);
    head.transfer(sections[0]);
    transfer_state(sections[1], session);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < session.layers.size(); ++i) {
        StoreShape shape = session.layers[i].store->shape();
        shape.transfer(sections[2 + i]);
        transfer_layer(sections[2 + i], session.layers[i], session.position);
    }
    for (const Archive& section : sections) {
        bytes += section.written().size();
    }
    DurableFile file(path);
    file.write(session_preamble(static_cast<std::uint32_t>(sections.size()), bytes));
    for (const Archive& section : sections) {
        file.write(section_frame(section.written()));
        file.write(section.written());
    }
    file.commit();
}

void load_session(Session::Impl& session, const std::string& path) {
    const std::vector<std::byte> bytes = read_whole_file(path);
    const SessionSections sections(bytes, path);
    const SessionHead& head = sections.head();
    check_head(head, session, path);
    session.check_tokens(head.tokens, head.position == 0);
    session.position = head.position;
    session.tokens = head.tokens;
    for (const auto& [first, last] : head.pins) {
        session.pins.add(first, last);
    }
    Archive state = sections.state();
    transfer_state(state, session);
    if (session.plan.pre_rope()) {
        const std::lock_guard lock(session.m().compute);
        session.plan.rope->remember(session.position);
    }
    for (int i = 0; i < head.layers; ++i) {
        Archive archive = sections.layer(i);
        StoreShape shape;
        shape.transfer(archive);
        const std::string different = shape.difference(session.layers[i].store->shape());
        if (!different.empty()) {
            archive.refuse("its options and the file do not agree about " + different);
        }
        transfer_layer(archive, session.layers[i], head.position);
    }
}

SessionFileInfo read_session_info(const std::string& path) {
    const std::vector<std::byte> bytes = read_whole_file(path);
    const SessionSections sections(bytes, path);
    const SessionHead& head = sections.head();
    SessionFileInfo info{.format_version = kSessionVersion,
                         .winnow = head.winnow,
                         .model_name = head.name,
                         .model_architecture = head.architecture,
                         .model_sha256 = head.sha256,
                         .cache = head.options,
                         .file_bytes = bytes.size(),
                         .tokens = head.tokens,
                         .pins = head.pins,
                         .kept = {},
                         .precisions = {},
                         .damage = {}};
    try {
        sections.state();
        for (int i = 0; i < head.layers; ++i) {
            Archive archive = sections.layer(i);
            StoreShape shape;
            shape.transfer(archive);
            SessionLayer layer;
            layer.store = std::make_unique<LayerStore>(
                shape.tiers, shape.kv_heads, shape.query_heads, shape.memory, nullptr, nullptr);
            transfer_layer(archive, layer, head.position);
            info.kept.push_back(mean_tokens(*layer.store));
            info.bytes += layer.store->bytes();
            info.policy_bytes += layer.store->policy_bytes();
            add_precisions(*layer.store, info.precisions);
        }
    } catch (const Error& error) {
        info.damage = error.what();
    }
    return info;
}

}  // namespace winnow
