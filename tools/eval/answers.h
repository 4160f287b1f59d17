// Greedy answers of several sessions in shared steps.
#pragma once

#include <winnow/winnow.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace winnow::eval {

/// The largest number of sessions, at most `most`, whose shared decode steps give each of them the
/// bits of steps by itself. It depends on the model's weight types and on the processor: products
/// whose weights ggml repacks for groups of rows round differently from four rows on. Measured on
/// the model by a few steps.
int exact_batch(const std::shared_ptr<const Model>& model, int most);

/// When an answer ends, besides the end of the sequence.
struct AnswerRules {
    int max_new_tokens = 0;
    int context = 0;  ///< positions a session may reach
    bool stop_at_newline = false;
};

struct Answer {
    std::string reply;
    int generated = 0;
    double ms = 0.0;  ///< this session's share of the steps it took part in
};

/// What `winnow run -n N` (and -r "\n") answers, for sessions that have read their prompt. Up to
/// `batch` of them share a step; one that is finished takes no part in later steps. `check(share)`
/// is called before each step with the share of the longest answer that is done; it may throw.
std::vector<Answer> answer_all(const std::vector<Session*>& sessions, const AnswerRules& rules,
                               int batch, const std::function<void(double)>& check);

}  // namespace winnow::eval
