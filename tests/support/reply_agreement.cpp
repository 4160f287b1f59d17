#include "support/reply_agreement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "eval/suite.h"
#include "support/test_files.h"

namespace winnow::testing {

namespace {

using eval::find_suite;
using eval::Prompt;
using eval::PromptSet;
using eval::Settings;

constexpr int kEach = 5;
constexpr int kLength = 1000;

std::int32_t best(std::span<const float> logits) {
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                     logits.begin());
}

// A reply in the making, ended as the runner ends it.
class Reply {
  public:
    Reply(const Model& model, const Prompt& prompt) : model_(&model), prompt_(&prompt) {}

    // False where the reply ends with this token; an end of generation counts as one.
    bool take(std::int32_t token) {
        tokens_.push_back(token);
        if (model_->is_end_of_generation(token)) {
            return false;
        }
        text_ += model_->piece(token);
        const std::size_t end = text_.find('\n');
        if (prompt_->stop_at_newline && end != std::string::npos) {
            text_.resize(end);
            return false;
        }
        return static_cast<int>(tokens_.size()) < prompt_->max_new_tokens;
    }
    const std::vector<std::int32_t>& tokens() const { return tokens_; }
    const std::string& text() const { return text_; }

  private:
    const Model* model_;
    const Prompt* prompt_;
    std::vector<std::int32_t> tokens_;
    std::string text_;
};

Reply ours(const std::shared_ptr<const Model>& model, const Prompt& prompt) {
    Session session(model);
    session.prefill(prompt.tokens);
    Reply reply(*model, prompt);
    while (reply.take(best(session.logits()))) {
        session.decode(reply.tokens().back());
    }
    return reply;
}

struct Theirs {
    Reply reply;
    std::size_t differs = 0;  // the first token that is not ours; the reply's length where none is
    float lead = 0.0F;        // of libllama's token over ours there
};

// libllama reads our reply behind the prompt; where it would have chosen another token, it goes on
// from there by itself.
Theirs theirs(ReferenceLlama& reference, const Model& model, const Prompt& prompt,
              const Reply& here) {
    const int size = static_cast<int>(prompt.tokens.size());
    std::vector<std::int32_t> all = prompt.tokens;
    all.insert(all.end(), here.tokens().begin(), here.tokens().end());
    reference.start(all, size - 1);
    Theirs there{Reply(model, prompt)};
    int at = size - 1;
    for (const std::int32_t token : here.tokens()) {
        const std::span<const float> logits = reference.logits(at++);
        const std::int32_t choice = best(logits);
        if (choice == token) {
            ++there.differs;
            there.reply.take(token);
            continue;
        }
        there.lead = logits[choice] - logits[token];
        for (std::int32_t next = choice; there.reply.take(next);) {
            next = best(reference.read_at(at++, next));
        }
        break;
    }
    return there;
}

PromptSet open(const std::string& suite, const std::string& datasets,
               const std::shared_ptr<const Model>& model) {
    Settings settings;
    settings.haystack = find_data("haystack");
    settings.s_len = settings.e_len = kLength;
    settings.needle = "sf,number";
    settings.depths = kEach;
    settings.datasets = datasets;
    settings.max_num_examples = suite == "needle" ? 0 : kEach;
    return find_suite(suite).open(settings, model);
}

void compare(const PromptSet& set, const std::shared_ptr<const Model>& model,
             ReferenceLlama& reference, ReplyTotals& totals) {
    for (std::size_t i = 0; i < set.ids.size(); ++i) {
        const Prompt prompt = set.make(i);
        const Reply here = ours(model, prompt);
        const Theirs there = theirs(reference, *model, prompt, here);
        const double score_here = set.score(prompt, here.text());
        const double score_there = set.score(prompt, there.reply.text());
        const bool same = there.differs == here.tokens().size();
        ++totals.prompts;
        totals.equal += same ? 1 : 0;
        totals.equal_scores += std::abs(score_here - score_there) < 1e-9 ? 1 : 0;
        totals.here += score_here;
        totals.there += score_there;
        totals.lead = std::max(totals.lead, there.lead);
        if (!same) {
            std::printf(
                "  %s, token %zu, where libllama's choice leads by %.3f\n"
                "    here  %.0f %s\n    there %.0f %s\n",
                prompt.id.c_str(), there.differs, there.lead, score_here, here.text().c_str(),
                score_there, there.reply.text().c_str());
        }
        std::fflush(stdout);
    }
}

}  // namespace

ReplyTotals compare_replies(const std::string& what, const std::shared_ptr<const Model>& model,
                            ReferenceLlama& reference) {
    ReplyTotals totals;
    compare(open("needle", "", model), model, reference, totals);
    compare(
        open("ruler",
             "niah_single_1,niah_single_2,niah_single_3,niah_multikey_1,niah_multikey_2,vt", model),
        model, reference, totals);
    std::printf("  %s: %d of %d replies and %d scores equal libllama's, means %.2f and %.2f\n",
                what.c_str(), totals.equal, totals.prompts, totals.equal_scores,
                totals.here / totals.prompts, totals.there / totals.prompts);
    std::fflush(stdout);
    return totals;
}

void expect_equal_scores(const ReplyTotals& totals) {
    EXPECT_EQ(totals.prompts, 8 * kEach);
    EXPECT_GE(totals.equal_scores, totals.prompts * 95 / 100);
    EXPECT_NEAR(totals.here / totals.prompts, totals.there / totals.prompts, 2.5);
    EXPECT_LT(totals.lead, 0.25F);  // rounding sways a near tie alone
}

}  // namespace winnow::testing
