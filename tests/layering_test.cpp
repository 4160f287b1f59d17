// Includes point one way, as DESIGN.md draws it: tools -> include -> engine -> {model, attend,
// text} -> {gguf, prune, cache} -> kernels -> core. Folders in one pair of braces do not see each
// other. The options, sampling and error headers hold values only and may be read anywhere.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const std::map<std::string, int> kRank = {{"core", 0},   {"kernels", 1}, {"cache", 2},
                                          {"prune", 2},  {"gguf", 2},    {"text", 3},
                                          {"attend", 3}, {"model", 3},   {"engine", 4}};
const std::set<std::string> kValueHeaders = {"winnow/error.h", "winnow/options.h",
                                             "winnow/sampling.h"};
// Of our internal headers, what tools may use: they need no engine.
const std::set<std::string> kToolHeaders = {"text/utf8.h", "text/sha256.h", "kernels/isa.h",
                                            "core/nearest.h"};
// Which folders may name these libraries at all.
const std::map<std::string, std::set<std::string>> kLibraries = {
    {"ggml", {"gguf", "model", "engine", "text"}},
    {"gguf", {"gguf"}},
    {"llama", {"text"}},
    {"hwy", {"kernels"}},
};

// The other engine of `winnow bench`.
const std::string kRivalFiles = "tools/bench/llama_";

struct Include {
    std::string file;    // relative to the root
    std::string folder;  // of src/, or "include", "tools"
    std::string target;  // as written
};

std::vector<Include> all_includes() {
    static const std::regex line_of("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"].*");
    const fs::path root = WINNOW_SOURCE_DIR;
    std::vector<Include> found;
    for (const char* top : {"src", "include", "tools"}) {
        for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
            const std::string extension = entry.path().extension().string();
            if (extension != ".h" && extension != ".cpp") {
                continue;
            }
            const fs::path file = fs::relative(entry.path(), root);
            const std::string folder =
                std::string(top) == "src" ? (++file.begin())->string() : std::string(top);
            std::ifstream in(entry.path());
            std::smatch match;
            for (std::string line; std::getline(in, line);) {
                if (std::regex_match(line, match, line_of)) {
                    found.push_back({file.string(), folder, match[1]});
                }
            }
        }
    }
    return found;
}

// The part before the first '/', or before the first of ".-" for a plain name such as ggml-cpu.h.
std::string first_part(const std::string& target) {
    return target.substr(0, target.find_first_of(target.find('/') != target.npos ? "/" : ".-"));
}

/// What is wrong with an include, or "".
std::string fault(const Include& include) {
    const std::string part = first_part(include.target);
    const auto library = kLibraries.find(part);
    const bool ours = include.target.find('/') != std::string::npos && kRank.count(part) == 1;
    if (!ours && library != kLibraries.end() && !include.file.starts_with(kRivalFiles) &&
        library->second.count(include.folder) == 0) {
        return "only some folders may name " + part;
    }
    if (include.folder == "tools") {
        return ours && kToolHeaders.count(include.target) == 0
                   ? "tools see the public headers alone"
                   : "";
    }
    if (include.folder == "include") {
        return part != "winnow" && include.target.find_first_of("./") != std::string::npos
                   ? "public headers see the standard library and each other alone"
                   : "";
    }
    const auto rank = kRank.find(include.folder);
    if (rank == kRank.end()) {
        return include.file == "src/library.cpp" ? "" : "this folder has no place in DESIGN.md";
    }
    if (part == "winnow" && kValueHeaders.count(include.target) == 0) {
        return include.folder == "engine" ? "" : "only the engine implements the public API";
    }
    if (ours && part != include.folder && kRank.at(part) >= rank->second) {
        return include.folder + " must not see " + part;
    }
    return "";
}

TEST(Layering, IncludesPointOneWay) {
    const std::vector<Include> includes = all_includes();
    ASSERT_GT(includes.size(), 300U) << "the sources were not found";
    for (const Include& include : includes) {
        EXPECT_EQ(fault(include), "") << include.file << " includes " << include.target;
    }
}

TEST(Layering, FaultsAreSeen) {
    const auto seen = [](const char* folder, const char* target) {
        return !fault({"a file", folder, target}).empty();
    };
    EXPECT_TRUE(seen("core", "cache/span.h"));
    EXPECT_TRUE(seen("cache", "prune/policy.h"));
    EXPECT_TRUE(seen("cache", "ggml.h"));
    EXPECT_TRUE(seen("prune", "winnow/winnow.h"));
    EXPECT_TRUE(seen("tools", "engine/plan.h"));
    EXPECT_TRUE(seen("include", "ggml-backend.h"));
    EXPECT_TRUE(seen("new_folder", "vector"));
    EXPECT_FALSE(seen("engine", "cache/span.h"));
    EXPECT_FALSE(seen("model", "ggml-cpu.h"));
    EXPECT_FALSE(seen("prune", "winnow/error.h"));
    EXPECT_FALSE(seen("include", "cstdint"));
}

}  // namespace
