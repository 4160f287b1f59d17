// Helpers for tests that feed broken GGUF files to the check.
#pragma once

#include <gtest/gtest.h>
#include <winnow/error.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "gguf/precheck.h"

namespace winnow::testing {

inline constexpr const char* kHostileName = "hostile.gguf";

/// A folder that vanishes with the test.
class Folder {
  public:
    Folder() {
        std::string name = ::testing::TempDir() + "winnow_gguf_XXXXXX";
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
        path_ = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }
    std::string file(const std::string& name) const { return path_ / name; }

  private:
    std::filesystem::path path_;
};

inline std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
}

inline void write_file(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// The message of the Error that `call` throws, or none; each message must be one short line
/// that names the file.
inline std::optional<std::string> refusal(const std::function<void()>& call,
                                          const std::string& name) {
    try {
        call();
    } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_EQ(error.kind(), ErrorKind::failure);
        EXPECT_NE(message.find(name), std::string::npos) << message;
        EXPECT_LT(message.size(), 300U) << message;
        EXPECT_EQ(message.find('\n'), std::string::npos) << message;
        return message;
    }
    return std::nullopt;
}

inline std::optional<std::string> parse_refusal(const std::string& bytes) {
    return refusal(
        [&] {
            gguf::refuse_unsupported(
                gguf::File::parse(bytes_of(bytes), bytes.size(), kHostileName));
        },
        kHostileName);
}

inline void expect_refused(const std::string& bytes, const std::string& part,
                           const std::string& label) {
    const auto message = parse_refusal(bytes);
    ASSERT_TRUE(message.has_value()) << label;
    EXPECT_NE(message->find(part), std::string::npos) << label << ": " << *message;
}

}  // namespace winnow::testing
