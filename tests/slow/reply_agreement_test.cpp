// SmolLM2's replies beside libllama's on default products and an f16 cache, scored as the suites
// do.
#include "support/reply_agreement.h"

#include <gtest/gtest.h>

#include "support/float_copy.h"
#include "support/gguf_refusal.h"
#include "support/test_files.h"

namespace winnow::testing {
namespace {

class ReplyAgreement : public ::testing::Test {
  protected:
    void SetUp() override {
        path_ = find_model("SmolLM2-135M");
        if (path_.empty() || find_data("haystack").empty()) {
            GTEST_SKIP() << missing_model("SmolLM2-135M") << "; " << missing_data("haystack");
        }
    }

    std::string path_;
};

// Of the file as it is libllama's products round activations to 8 bits, which sways near ties: with
// a float32 cache libllama agrees with itself no more often (DESIGN.md).
TEST_F(ReplyAgreement, FileAsItIs) {
    const auto model = Model::load(path_);
    ReferenceLlama reference(path_, kReplyContext, model->threads());
    const ReplyTotals totals = compare_replies("Winnow", model, reference);
    expect_equal_scores(totals);
    EXPECT_GE(totals.equal, totals.prompts * 85 / 100);
}

TEST_F(ReplyAgreement, WeightsInFloats) {
    const Folder folder;
    const std::string floats = folder.file("floats.gguf");
    write_float_copy(path_, floats);
    const auto model = Model::load(floats);
    ReferenceLlama reference(floats, kReplyContext, model->threads());
    const ReplyTotals totals = compare_replies("Winnow, weights in floats", model, reference);
    expect_equal_scores(totals);
    EXPECT_GE(totals.equal, totals.prompts * 95 / 100);
}

}  // namespace
}  // namespace winnow::testing
