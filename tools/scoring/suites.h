// Scores of whole suites: which metric a task has, how a reply is cut before it, the best of
// several answers. Scores are 0..100.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace winnow::scoring {

enum class Metric {
    qa_f1,
    qa_f1_words_zh,  ///< needs a Chinese word segmenter, which we lack
    rouge_l,
    rouge_l_words_zh,  ///< needs a Chinese word segmenter, which we lack
    classification,
    count,
    retrieval,
    retrieval_zh,
    code_similarity,
};

std::string_view metric_name(Metric metric);

/// True for metrics over Chinese words: there is no segmenter here, so their tasks are refused.
bool needs_segmenter(Metric metric);

/// What LongBench fixes for a task.
struct LongBenchTask {
    std::string_view name;
    Metric metric;
    int max_new_tokens;
    bool chat_template = true;     ///< official mode; paper mode has raw prompts everywhere
    bool first_line = false;       ///< only the reply's first line is scored
    bool stop_at_newline = false;  ///< the reply ends before its first newline
    bool chinese = false;
};

/// All 21 tasks, in the order of the benchmark's tables: 16 English ones, then 5 Chinese ones.
std::span<const LongBenchTask> longbench_tasks();

/// Throws a usage Error that lists the names where there is no such task, and one that says why
/// where its metric is one of those we lack.
const LongBenchTask& longbench_task(std::string_view name);

/// The best score over `answers`. `classes` matters to classification tasks only.
double longbench_score(const LongBenchTask& task, std::string_view reply,
                       std::span<const std::string> answers, std::span<const std::string> classes);

/// RULER: the fraction of `outputs` contained in the reply; qa tasks: whether any of them is.
double ruler_score(std::string_view task, std::string_view reply,
                   std::span<const std::string> outputs);

/// The paper's needle: word overlap. `number`: whether the reply contains `expected`.
double needle_sf_score(std::string_view reply, std::string_view expected);
double needle_number_score(std::string_view reply, std::string_view expected);

}  // namespace winnow::scoring
