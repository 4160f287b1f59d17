// Where tests find real models and texts, and what they say when these are missing.
#pragma once

#include <cstddef>
#include <string>

namespace winnow::testing {

/// Finds a GGUF file whose name starts with `start`, in any case: in $WINNOW_TEST_MODELS, by
/// default ~/.cache/winnow-models, then beside the default model that `make run` fetches. Empty
/// where there is none.
std::string find_model(const std::string& start);

/// "needs <start>*.gguf in $WINNOW_TEST_MODELS": for GTEST_SKIP.
std::string missing_model(const std::string& start);

/// A folder or file of the shared test data: $WINNOW_TEST_DATA, by default shared/data beside the
/// checkout. Empty where it is missing.
std::string find_data(const std::string& name);

/// "needs <name> in $WINNOW_TEST_DATA": for GTEST_SKIP.
std::string missing_data(const std::string& name);

/// At least `bytes` bytes of English, cut there: the haystack's files in name order joined by
/// newlines, else the text files of examples/; repeated where they are too short. Empty where both
/// are missing.
std::string english_text(std::size_t bytes);

/// The same, but only texts of the repository, so that every checkout gets the same.
std::string example_text(std::size_t bytes);

}  // namespace winnow::testing
