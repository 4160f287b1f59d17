// Qwen2.5's replies beside libllama's on its default products and an f16 cache, the file as it is,
// scored as the suites do.
#include <gtest/gtest.h>

#include "support/reply_agreement.h"
#include "support/test_files.h"

namespace winnow::testing {
namespace {

TEST(ReplyAgreementQwen, FileAsItIs) {
    const std::string path = find_model("qwen2.5-coder-0.5b");
    if (path.empty() || find_data("haystack").empty()) {
        GTEST_SKIP() << missing_model("qwen2.5-coder-0.5b") << "; " << missing_data("haystack");
    }
    const auto model = Model::load(path);
    ReferenceLlama reference(path, kReplyContext, model->threads());
    const ReplyTotals totals = compare_replies("Winnow", model, reference);
    expect_equal_scores(totals);
    EXPECT_GE(totals.equal, totals.prompts * 95 / 100);
}

}  // namespace
}  // namespace winnow::testing
