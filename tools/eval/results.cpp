#include "eval/results.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <winnow/error.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

namespace winnow::eval {

namespace fs = std::filesystem;

namespace {

std::string read_all(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

Error cannot(const std::string& what, const fs::path& path, int error) {
    return failure("--save-dir: " + what + " " + path.string() + ": " + std::strerror(error) + ".");
}

// Names like run.json, run-0-of-4.json and their results.
bool is_part(const fs::path& path, const std::string& stem, const std::string& extension) {
    const std::string name = path.filename().string();
    return path.extension() == extension &&
           (path.stem() == stem ||
            (name.starts_with(stem + "-") && name.find("-of-") != std::string::npos));
}

std::vector<fs::path> parts(const fs::path& folder, const std::string& stem,
                            const std::string& extension) {
    std::vector<fs::path> found;
    std::error_code code;
    for (const auto& entry : fs::directory_iterator(folder, code)) {
        if (entry.is_regular_file(code) && is_part(entry.path(), stem, extension)) {
            found.push_back(entry.path());
        }
    }
    std::sort(found.begin(), found.end());
    return found;
}

// Whether a folder holds no run, or shards of this very one. A rank that starts beside this one has
// opened its results a moment before its run is described there.
bool fits(const fs::path& folder, const std::string& fingerprint) {
    const std::vector<fs::path> runs = parts(folder, "run", ".json");
    if (runs.empty()) {
        const auto results = parts(folder, "results", ".jsonl");
        return std::ranges::all_of(results, [](const fs::path& path) {
            std::error_code code;
            return fs::file_size(path, code) == 0 && !code;
        });
    }
    return std::all_of(runs.begin(), runs.end(), [&](const fs::path& path) {
        const OrderedJson run = OrderedJson::parse(read_all(path), nullptr, false);
        return run.is_object() && run.value("fingerprint", "") == fingerprint;
    });
}

// To a temporary file beside `path`, then renamed.
void replace_file(const fs::path& path, const std::string& text) {
    const fs::path fresh = path.string() + "." + std::to_string(getpid());
    {
        std::ofstream out(fresh, std::ios::binary);
        out << text;
        if (!out.flush()) {
            const int error = errno;
            std::error_code code;
            fs::remove(fresh, code);
            throw cannot("cannot write", path, error != 0 ? error : EIO);
        }
    }
    fs::rename(fresh, path);
}

// A results file, whole lines only: `bytes` is where the last one ends.
struct Lines {
    std::vector<OrderedJson> lines;
    std::vector<std::size_t> ends;
};

Lines read_lines(const fs::path& path) {
    const std::string text = read_all(path);
    Lines all;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        if (end == std::string::npos) {
            break;
        }
        OrderedJson line =
            OrderedJson::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                               text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
        if (!line.is_object()) {
            break;  // nothing behind a damaged line counts
        }
        at = end + 1;
        all.lines.push_back(std::move(line));
        all.ends.push_back(at);
    }
    return all;
}

}  // namespace

ResultFile::ResultFile(const fs::path& folder, const Shard& shard, const OrderedJson& run,
                       std::size_t lines_per_prompt)
    : shard_(shard) {
    choose_folder(folder, run.at("fingerprint").get<std::string>());
    path_ = folder_ / shard_.file_name("results", ".jsonl");
    open_file();
    try {
        replace_file(folder_ / shard_.file_name("run", ".json"), run.dump(1) + "\n");
        read_done(lines_per_prompt);
    } catch (...) {
        close(file_);
        throw;
    }
}

ResultFile::~ResultFile() {
    close(file_);
}

void ResultFile::choose_folder(const fs::path& folder, const std::string& fingerprint) {
    for (int number = 1;; ++number) {
        folder_ = number == 1 ? folder : folder / ("run-" + std::to_string(number));
        std::error_code code;
        fs::create_directories(folder_, code);
        if (code) {
            throw failure("--save-dir names " + folder.string() +
                          ", which cannot be made a folder: " + code.message() + ".");
        }
        if (fits(folder_, fingerprint)) {
            return;
        }
    }
}

void ResultFile::open_file() {
    file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file_ < 0) {
        throw cannot("cannot write", path_, errno);
    }
    if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
        close(file_);
        throw failure("--save-dir: another process is writing " + path_.string() +
                      "; wait for it, or give each process its --shard i/n.");
    }
}

void ResultFile::read_done(std::size_t lines_per_prompt) {
    for (const fs::path& path : parts(folder_, "results", ".jsonl")) {
        const Lines all = read_lines(path);
        std::map<std::string, std::size_t> count;
        std::size_t whole = 0;
        for (std::size_t i = 0; i < all.lines.size(); ++i) {
            const auto prompt = all.lines[i].value("prompt", std::string());
            if (++count[prompt] == lines_per_prompt) {
                done_.insert(prompt);
                whole = all.ends[i];
            }
        }
        if (path == path_) {
            cut_to(whole);
        }
    }
}

void ResultFile::cut_to(std::size_t bytes) {
    if (ftruncate(file_, static_cast<off_t>(bytes)) != 0) {
        throw cannot("cannot cut", path_, errno);
    }
    size_ = bytes;
}

void ResultFile::append(const std::string& prompt, const std::vector<OrderedJson>& lines) {
    std::string text;
    for (const OrderedJson& line : lines) {
        text += line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
    }
    std::size_t written = 0;
    int error = 0;
    while (written < text.size() && error == 0) {
        const ssize_t n = pwrite(file_, text.data() + written, text.size() - written,
                                 static_cast<off_t>(size_ + written));
        if (n > 0) {
            written += static_cast<std::size_t>(n);
        } else if (n == 0 || errno != EINTR) {
            error = n == 0 ? EIO : errno;
        }
    }
    if (error == 0 && fsync(file_) != 0 && errno != EINVAL) {
        error = errno;
    }
    if (error != 0) {
        cut_to(size_);
        throw failure("--save-dir: cannot write " + path_.string() + ": " + std::strerror(error) +
                      "; the " + std::to_string(done_.size()) +
                      " prompts before are whole, and the same command goes on from there.");
    }
    size_ += written;
    done_.insert(prompt);
}

std::vector<OrderedJson> read_result_lines(const fs::path& folder) {
    std::vector<OrderedJson> all;
    for (const fs::path& path : parts(folder, "results", ".jsonl")) {
        Lines part = read_lines(path);
        all.insert(all.end(), std::make_move_iterator(part.lines.begin()),
                   std::make_move_iterator(part.lines.end()));
    }
    return all;
}

}  // namespace winnow::eval
