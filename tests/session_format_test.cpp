// Sessions on disk go on with the same logits, whatever the storage format.
#include <gtest/gtest.h>

#include "support/session_files.h"

namespace winnow {
namespace {

class SessionFormat : public testing::SessionFiles<1> {};

TEST_F(SessionFormat, EveryFormatGoesOnWithTheSameLogits) {
    for (const MethodInfo& format : format_list()) {
        for (const int bits : {2, 3, 4, 8}) {
            SCOPED_TRACE(format.name + " " + std::to_string(bits));
            CacheOptions o = snapkv();
            o.quant_method = format.name;
            o.nbits = format.name == "none" ? 16 : bits;
            o.nbits_v = format.name == "none" ? 0 : 16;
            try {
                validate(o);
            } catch (const Error&) {
                continue;  // a width that the format lacks
            }
            o.nbits_v = 0;
            expect_goes_on(o);
            o.method = "full";
            o.max_capacity_prompts = 0;
            expect_goes_on(o, bits == 4 ? 700 : 30);  // more than one tile, or all in the tail
        }
    }
    CacheOptions o = snapkv();
    for (const char* format : {"hqq", "kvquant"}) {
        SCOPED_TRACE(format);
        o.quant_method = format;
        o.outlier_threshold = 1.5;
        expect_goes_on(o);
    }
}

}  // namespace
}  // namespace winnow
