#include "eval/answers.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "text/utf8.h"

namespace winnow::eval {

namespace {

using Clock = std::chrono::steady_clock;

std::int32_t likeliest(std::span<const float> logits) {
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                     logits.begin());
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// An answer in the making.
class Writer {
  public:
    Writer(Session& session, const AnswerRules& rules)
        : session_(&session), rules_(rules), stops_(stop_strings(rules)) {}

    Session& session() const { return *session_; }
    Answer& answer() { return answer_; }

    // Takes the next token, which is then to be decoded; false where the answer has ended.
    bool next(std::int32_t& token) {
        if (ended_ || answer_.generated >= rules_.max_new_tokens ||
            session_->position() >= rules_.context) {
            return false;
        }
        token = likeliest(session_->logits());
        if (session_->model().is_end_of_generation(token)) {
            return false;
        }
        ++answer_.generated;
        answer_.reply += stops_.push(characters_.push(session_->model().piece(token)));
        // The last token is decoded too, as a run does: the cache holds what was seen.
        ended_ = stops_.stopped();
        return true;
    }

    Answer finish() {
        answer_.reply += stops_.push(characters_.finish()) + stops_.finish();
        return std::move(answer_);
    }

  private:
    static std::vector<std::string> stop_strings(const AnswerRules& rules) {
        return rules.stop_at_newline ? std::vector<std::string>{"\n"} : std::vector<std::string>{};
    }

    Session* session_;
    AnswerRules rules_;
    Utf8Stream characters_;
    StopMatcher stops_;
    Answer answer_;
    bool ended_ = false;
};

// One step of at most `batch` writers from `first` on; returns where the next step begins.
std::size_t step(std::span<Writer* const> writers, std::span<const std::int32_t> tokens,
                 std::size_t first, int batch) {
    const std::size_t count = std::min<std::size_t>(batch, writers.size() - first);
    std::vector<Session*> sessions;
    for (Writer* writer : writers.subspan(first, count)) {
        sessions.push_back(&writer->session());
    }
    const auto start = Clock::now();
    Session::decode(sessions, tokens.subspan(first, count));
    const std::chrono::duration<double, std::milli> spent = Clock::now() - start;
    for (Writer* writer : writers.subspan(first, count)) {
        writer->answer().ms += spent.count() / static_cast<double>(count);
    }
    return first + count;
}

}  // namespace

int exact_batch(const std::shared_ptr<const Model>& model, int most) {
    constexpr int kDistinct = 8;
    const int vocabulary = model->info().vocabulary;
    const auto token = [&](int i) { return (i % kDistinct * 7919 + 31) % vocabulary; };
    Session start(model);
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < kDistinct; ++i) {
        prompt.push_back(token(i + 3));
    }
    start.prefill(prompt);
    std::vector<Session> alone;
    for (int i = 0; i < std::min(most, kDistinct); ++i) {
        alone.push_back(start.clone());
        alone.back().decode(token(i));
    }
    int exact = 1;
    for (const int size : {2, 3, 4, 5, 8, 16, most}) {
        if (size <= exact || size > most) {
            continue;
        }
        std::vector<Session> together;
        std::vector<Session*> pointers;
        std::vector<std::int32_t> tokens;
        for (int i = 0; i < size; ++i) {
            together.push_back(start.clone());
            tokens.push_back(token(i));
        }
        for (Session& session : together) {
            pointers.push_back(&session);
        }
        Session::decode(pointers, tokens);
        for (int i = 0; i < size; ++i) {
            if (!same_bits(together[i].logits(), alone[i % kDistinct].logits())) {
                return exact;
            }
        }
        exact = size;
    }
    return exact;
}

std::vector<Answer> answer_all(const std::vector<Session*>& sessions, const AnswerRules& rules,
                               int batch, const std::function<void(double)>& check) {
    std::vector<Writer> writers;
    writers.reserve(sessions.size());
    std::vector<Writer*> active;
    for (Session* session : sessions) {
        writers.emplace_back(*session, rules);
        active.push_back(&writers.back());
    }
    std::vector<std::int32_t> tokens;
    for (int done = 0;; ++done) {
        tokens.clear();
        std::vector<Writer*> going;
        for (Writer* writer : active) {
            std::int32_t token = 0;
            if (writer->next(token)) {
                going.push_back(writer);
                tokens.push_back(token);
            }
        }
        active = std::move(going);
        if (active.empty()) {
            break;
        }
        for (std::size_t first = 0; first < active.size();) {
            check(static_cast<double>(done) / rules.max_new_tokens);
            first = step(active, tokens, first, batch);
        }
    }
    std::vector<Answer> answers;
    for (Writer& writer : writers) {
        answers.push_back(writer.finish());
    }
    return answers;
}

}  // namespace winnow::eval
