// Files of a report: replaced whole, and what is no file stays what it is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "report/files.h"

namespace winnow::report {
namespace {

TEST(ReportFiles, APipeIsWrittenToAndNotReplaced) {
    const std::string path = ::testing::TempDir() + "winnow_report_files_test.fifo";
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    const int reader = open(path.c_str(), O_RDONLY | O_NONBLOCK);
    ASSERT_GE(reader, 0);
    write_whole(path, "a page");
    char text[16] = {};
    EXPECT_EQ(read(reader, text, sizeof text), 6);
    EXPECT_STREQ(text, "a page");
    EXPECT_TRUE(std::filesystem::is_fifo(path));
    close(reader);
    std::filesystem::remove(path);
}

TEST(ReportFiles, AFileIsReplaced) {
    const std::string path = ::testing::TempDir() + "winnow_report_files_test.txt";
    write_whole(path, "old, and longer");
    write_whole(path, "new");
    EXPECT_EQ(read_whole(path), "new");
    std::filesystem::remove(path);
}

}  // namespace
}  // namespace winnow::report
