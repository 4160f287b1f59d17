// A session file that is wrong in any way is a sentence, and never more than that.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/checksum.h"
#include "core/durable_file.h"
#include "support/session_files.h"

namespace winnow {
namespace {

class SessionDamage : public testing::SessionFiles<2> {
  protected:
    void SetUp() override {
        Session session(model_, snapkv());
        session.prefill(prompt(200));
        session.save(path("good"));
        good_ = read_whole_file(path("good"));
    }
    // Refused by load() and by read_session_info(), or by the latter as damage.
    void expect_refused(const Bytes& bytes, const std::string& part) {
        write("bad", bytes);
        const std::string message = error_of([&] { Session::load(model_, path("bad"), snapkv()); });
        EXPECT_NE(message, "");
        EXPECT_NE(message.find("bad'"), std::string::npos) << message;
        EXPECT_NE(message.find(part), std::string::npos) << message;
        std::string damage;
        const std::string thrown =
            error_of([&] { damage = read_session_info(path("bad")).damage; });
        EXPECT_NE(damage + thrown, "");
    }
    // Puts the right checksum on a section whose content was changed.
    static void reseal(Bytes& bytes) {
        std::size_t at = 32;
        while (at + 16 <= bytes.size()) {
            std::uint64_t size = 0;
            std::memcpy(&size, bytes.data() + at, 8);
            if (size > bytes.size() - at - 16) {
                return;
            }
            const std::uint64_t sum = checksum(std::span(bytes).subspan(at + 16, size));
            std::memcpy(bytes.data() + at + 8, &sum, 8);
            at += 16 + size;
        }
    }
    Bytes good_;
};

TEST_F(SessionDamage, CutOffAnywhere) {
    for (std::size_t size = 0; size < good_.size(); size += size < 300 ? 1 : 997) {
        expect_refused({good_.begin(), good_.begin() + static_cast<std::ptrdiff_t>(size)}, "");
    }
    Bytes longer = good_;
    longer.push_back(std::byte{0});
    expect_refused(longer, "something was added");
}

TEST_F(SessionDamage, ABitAnywhere) {
    std::mt19937 random(3);
    for (int round = 0; round < 150; ++round) {
        Bytes bytes = good_;
        const std::size_t at =
            round < 64 ? static_cast<std::size_t>(round) : random() % bytes.size();
        bytes[at] ^= std::byte{1} << random() % 8;
        expect_refused(bytes, "");
    }
}

TEST_F(SessionDamage, OtherVersionsFilesModelsAndOptions) {
    Bytes bytes = good_;
    bytes[8] = std::byte{9};
    expect_refused(bytes, "version 9");
    expect_refused(Bytes(1000, std::byte{7}), "not a session");
    EXPECT_NE(
        error_of([&] { Session::load(model_, path("none"), snapkv()); }).find("cannot be read"),
        std::string::npos);
    EXPECT_NE(error_of([&] { Session::load(model_, ::testing::TempDir(), snapkv()); }), "");
    const auto other = Model::load(path("b.gguf"), {.threads = 1});
    EXPECT_NE(error_of([&] { Session::load(other, path("good"), snapkv()); }).find(other->sha256()),
              std::string::npos);
    CacheOptions o = snapkv();
    o.nbits = 2;
    const std::string message = error_of([&] { Session::load(model_, path("good"), o); });
    EXPECT_NE(message.find("--nbits is '4' there and '2' here"), std::string::npos) << message;
    SessionOptions small;
    small.context = 100;
    EXPECT_NE(error_of([&] { Session::load(model_, path("good"), snapkv(), small); }), "");
}

// Contents that the checksums vouch for are believed no more: an error, or a session that runs.
TEST_F(SessionDamage, ForgedContentsAreRefusedOrHarmless) {
    std::mt19937 random(4);
    std::vector<CacheOptions> caches(5, snapkv());
    caches[1].quant_method = "kvquant";
    caches[2].quant_method = "hqq";
    caches[2].outlier_threshold = 1.5;
    caches[3].quant_method = "graded";
    caches[4].method = "mixed";
    caches[4].nbits = 0;
    int refused = 0;
    for (const CacheOptions& cache : caches) {
        Session session(model_, cache);
        session.prefill(prompt(200));
        session.save(path("forged"));
        const Bytes whole = read_whole_file(path("forged"));
        for (int round = 0; round < 60; ++round) {
            Bytes bytes = whole;
            for (unsigned i = 0; i <= random() % 3; ++i) {
                const std::size_t at = 48 + random() % (bytes.size() - 48);
                const std::byte value =
                    random() % 3 == 0 ? std::byte{0xFF} : static_cast<std::byte>(random());
                bytes[at] = value;
            }
            // Counts are 64 bits wide: a huge one now and then.
            if (round % 10 == 0) {
                const std::uint64_t huge = ~0ULL >> random() % 40;
                std::memcpy(bytes.data() + 48 + random() % (bytes.size() - 56), &huge, 8);
            }
            reseal(bytes);
            write("forged", bytes);
            try {
                Session back = Session::load(model_, path("forged"), cache);
                for (int i = 0; i < 3; ++i) {
                    back.decode(i);
                }
                back.prefill(prompt(60, 5));
            } catch (const Error&) {
                ++refused;
            }
            try {
                read_session_info(path("forged"));
            } catch (const Error&) {
            }
        }
    }
    EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace winnow
