#include "report/tables.h"

#include "report/cells.h"
#include "report/text.h"

namespace winnow::report {

Table summary_table(const Stats& stats, const Stats* fidelity) {
    Table table{.key = "summary",
                .title = "Summary",
                .caption =
                    "Means over prompts. \xc2\xb1 is one standard error. Bytes count "
                    "everything that the cache holds at the end of the answer, rings and sums of "
                    "its policy included; bits are per packed element, scales and zeros included.",
                .columns = {{"configuration", "config", "", true}},
                .rows = {}};
    auto& columns = table.columns;
    for (const Measure& m : stats.measures()) {
        columns.push_back({m.label, m.key + (m.kl ? "_mean" : "_score"), ""});
        if (!m.kl) columns.push_back({"\xc2\xb1", m.key + "_standard_error", ""});
    }
    if (fidelity != nullptr) {
        columns.push_back({"KL", "kl_mean", "of the fidelity run with the same model"});
    }
    columns.insert(columns.end(),
                   {{"KV bytes", "kv_bytes", ""},
                    {"of full", "share_of_full", "bytes over those of the full f16 cache"},
                    {"kept", "kept_tokens", "tokens kept per kv head, mean over layers"},
                    {"bits K", "bits_k", ""},
                    {"bits V", "bits_v", ""},
                    {"prompts", "prompts", ""}});
    const Run& run = stats.run();
    for (std::size_t i = 0; i < run.configs.size(); ++i) {
        Row row{
            .cells = {word_cell(run.configs[i].id)}, .kind = kind_of(run.configs[i]), .block = ""};
        auto& cells = row.cells;
        for (const Measure& m : stats.measures()) {
            const Mean mean = stats.measure(i, m);
            cells.push_back(value_cell(m, mean.value));
            if (!m.kl) cells.push_back(number_cell(mean.error, 1));
        }
        if (fidelity != nullptr) {
            double kl = kNone;
            const auto& other = fidelity->run().configs;
            for (std::size_t j = 0; j < other.size(); ++j) {
                if (other[j].id == run.configs[i].id) kl = fidelity->fidelity(j).kl_mean;
            }
            cells.push_back(kl_cell(kl));
        }
        const KvSize& kv = stats.kv(i);
        cells.push_back({.shown = human_bytes(kv.bytes), .raw = exact(kv.bytes)});
        cells.push_back(share_cell(stats.share(i)));
        cells.push_back(count_cell(kv.kept));
        cells.push_back(number_cell(kv.bits_k, 2));
        cells.push_back(number_cell(kv.bits_v, 2));
        cells.push_back(count_cell(static_cast<double>(stats.prompts(i))));
        table.rows.push_back(std::move(row));
    }
    return table;
}

Table fidelity_table(const Stats& stats) {
    const Run& run = stats.run();
    Table table{.key = "fidelity",
                .title = "Fidelity",
                .caption =
                    "The next tokens of the text, teacher-forced through the compressed "
                    "cache, against the full cache: means over all forced tokens; p99 is "
                    "the mean of the texts' 99th percentiles. KL in nats.",
                .columns = {{"configuration", "config", "", true},
                            {"of full", "share_of_full", ""},
                            {"bits K", "bits_k", ""},
                            {"bits V", "bits_v", ""},
                            {"tokens", "tokens", "teacher-forced tokens"},
                            {"KL mean", "kl_mean", ""},
                            {"KL p99", "kl_p99", ""},
                            {"top-1", "top1", "share of tokens with the same likeliest token"},
                            {"perplexity", "ppl", ""},
                            {"over full", "ppl_ratio", "perplexity over the full cache's"}},
                .rows = {}};
    for (std::size_t i = 0; i < run.configs.size(); ++i) {
        const Fidelity f = stats.fidelity(i);
        if (std::isnan(f.kl_mean)) continue;
        table.rows.push_back(
            {.cells = {word_cell(run.configs[i].id),
                       share_cell(stats.share(i)),
                       number_cell(stats.kv(i).bits_k, 2),
                       number_cell(stats.kv(i).bits_v, 2),
                       count_cell(f.tokens),
                       kl_cell(f.kl_mean),
                       kl_cell(f.kl_p99),
                       {.shown = fixed(f.top1 * 100, 1) + " %", .raw = exact(f.top1)},
                       number_cell(f.ppl, 2),
                       number_cell(f.ppl / f.ppl_full, 3)},
             .kind = kind_of(run.configs[i]),
             .block = ""});
    }
    return table;
}

std::string csv(const Table& table) {
    std::string text;
    const auto add_row = [&](const auto& items, auto field) {
        for (std::size_t i = 0; i < items.size(); ++i) {
            text += (i == 0 ? "" : ",") + csv_field(field(items[i]));
        }
        text += "\r\n";
    };
    add_row(table.columns, [](const Column& c) { return c.csv; });
    for (const Row& row : table.rows) add_row(row.cells, [](const Cell& c) { return c.raw; });
    return text;
}

}  // namespace winnow::report
