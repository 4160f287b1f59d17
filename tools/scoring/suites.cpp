#include "scoring/suites.h"

#include <winnow/error.h>

#include <algorithm>

#include "scoring/metrics.h"

namespace winnow::scoring {

namespace {

constexpr LongBenchTask kTasks[] = {
    {.name = "narrativeqa", .metric = Metric::qa_f1, .max_new_tokens = 128},
    {.name = "qasper", .metric = Metric::qa_f1, .max_new_tokens = 128},
    {.name = "multifieldqa_en", .metric = Metric::qa_f1, .max_new_tokens = 64},
    {.name = "hotpotqa", .metric = Metric::qa_f1, .max_new_tokens = 32},
    {.name = "2wikimqa", .metric = Metric::qa_f1, .max_new_tokens = 32},
    {.name = "musique", .metric = Metric::qa_f1, .max_new_tokens = 32},
    {.name = "gov_report", .metric = Metric::rouge_l, .max_new_tokens = 512},
    {.name = "qmsum", .metric = Metric::rouge_l, .max_new_tokens = 512},
    {.name = "multi_news", .metric = Metric::rouge_l, .max_new_tokens = 512},
    {.name = "trec",
     .metric = Metric::classification,
     .max_new_tokens = 64,
     .chat_template = false,
     .first_line = true},
    {.name = "triviaqa",
     .metric = Metric::qa_f1,
     .max_new_tokens = 32,
     .chat_template = false,
     .first_line = true},
    {.name = "samsum",
     .metric = Metric::rouge_l,
     .max_new_tokens = 128,
     .chat_template = false,
     .first_line = true,
     .stop_at_newline = true},
    {.name = "passage_count", .metric = Metric::count, .max_new_tokens = 32},
    {.name = "passage_retrieval_en", .metric = Metric::retrieval, .max_new_tokens = 32},
    {.name = "lcc",
     .metric = Metric::code_similarity,
     .max_new_tokens = 64,
     .chat_template = false},
    {.name = "repobench-p",
     .metric = Metric::code_similarity,
     .max_new_tokens = 64,
     .chat_template = false},
    {.name = "multifieldqa_zh",
     .metric = Metric::qa_f1_words_zh,
     .max_new_tokens = 64,
     .chinese = true},
    {.name = "dureader",
     .metric = Metric::rouge_l_words_zh,
     .max_new_tokens = 128,
     .chinese = true},
    {.name = "vcsum", .metric = Metric::rouge_l_words_zh, .max_new_tokens = 512, .chinese = true},
    {.name = "lsht",
     .metric = Metric::classification,
     .max_new_tokens = 64,
     .chat_template = false,
     .first_line = true,
     .chinese = true},
    {.name = "passage_retrieval_zh",
     .metric = Metric::retrieval_zh,
     .max_new_tokens = 32,
     .chinese = true},
};

// The official evaluation's cut: leading newlines dropped, then up to the next one.
std::string_view first_line(std::string_view reply) {
    const std::size_t start = std::min(reply.find_first_not_of('\n'), reply.size());
    reply.remove_prefix(start);
    return reply.substr(0, reply.find('\n'));
}

double score_of(Metric metric, std::string_view reply, std::string_view answer,
                std::span<const std::string> classes) {
    switch (metric) {
        case Metric::qa_f1:
            return qa_f1(reply, answer);
        case Metric::rouge_l:
            return rouge_l(reply, answer);
        case Metric::classification:
            return classification(reply, answer, classes);
        case Metric::count:
            return count_share(reply, answer);
        case Metric::retrieval:
            return retrieval(reply, answer);
        case Metric::retrieval_zh:
            return retrieval(reply, answer, "\u6BB5\u843D");
        case Metric::code_similarity:
            return code_similarity(reply, answer);
        case Metric::qa_f1_words_zh:
        case Metric::rouge_l_words_zh:
            break;
    }
    throw failure("The metric '" + std::string(metric_name(metric)) +
                  "' needs a Chinese word segmenter, which this build lacks.");
}

}  // namespace

std::string_view metric_name(Metric metric) {
    switch (metric) {
        case Metric::qa_f1:
            return "qa_f1";
        case Metric::qa_f1_words_zh:
            return "qa_f1_zh";
        case Metric::rouge_l:
            return "rouge_l";
        case Metric::rouge_l_words_zh:
            return "rouge_l_zh";
        case Metric::classification:
            return "classification";
        case Metric::count:
            return "count";
        case Metric::retrieval:
            return "retrieval";
        case Metric::retrieval_zh:
            return "retrieval_zh";
        case Metric::code_similarity:
            return "code_similarity";
    }
    return "";
}

bool needs_segmenter(Metric metric) {
    return metric == Metric::qa_f1_words_zh || metric == Metric::rouge_l_words_zh;
}

std::span<const LongBenchTask> longbench_tasks() {
    return kTasks;
}

const LongBenchTask& longbench_task(std::string_view name) {
    std::string names;
    for (const LongBenchTask& task : kTasks) {
        if (task.name == name) {
            if (needs_segmenter(task.metric)) {
                throw usage_error("The LongBench task '" + std::string(name) +
                                  "' is scored over Chinese words, and there is no segmenter for "
                                  "them here; of the Chinese tasks only lsht and "
                                  "passage_retrieval_zh can be run.");
            }
            return task;
        }
        if (!needs_segmenter(task.metric)) {
            names += (names.empty() ? "" : ", ") + std::string(task.name);
        }
    }
    throw usage_error("'" + std::string(name) + "' is no LongBench task; there are " + names + ".");
}

double longbench_score(const LongBenchTask& task, std::string_view reply,
                       std::span<const std::string> answers, std::span<const std::string> classes) {
    if (task.first_line) {
        reply = first_line(reply);
    }
    double best = 0.0;
    for (const std::string& answer : answers) {
        best = std::max(best, score_of(task.metric, reply, answer, classes));
    }
    return 100.0 * best;
}

double ruler_score(std::string_view task, std::string_view reply,
                   std::span<const std::string> outputs) {
    return 100.0 * (task.starts_with("qa_") ? string_match_any(reply, outputs)
                                            : string_match_all(reply, outputs));
}

double needle_sf_score(std::string_view reply, std::string_view expected) {
    return 100.0 * word_overlap(reply, expected);
}

double needle_number_score(std::string_view reply, std::string_view expected) {
    return reply.find(expected) != std::string_view::npos ? 100.0 : 0.0;
}

}  // namespace winnow::scoring
