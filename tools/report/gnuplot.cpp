#include "report/gnuplot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <winnow/error.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "report/files.h"
#include "report/script.h"

extern char** environ;

namespace winnow::report {

namespace fs = std::filesystem;

namespace {

// Its exit status, or -1 where it could not be started. Its messages go to `log`.
int run_in(const fs::path& folder, const std::vector<std::string>& words, const fs::path& log) {
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    pid_t child = 0;
    const int code = posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) return -1;
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The line of gnuplot's messages that says what is wrong: the last that is not empty.
std::string complaint(const fs::path& log) {
    std::ifstream in(log);
    std::string last;
    for (std::string line; std::getline(in, line);) {
        if (line.find_first_not_of(" \t^") != std::string::npos) last = line;
    }
    return last;
}

// What was drawn; "" where that ended in the middle.
std::string drawn_svg(const fs::path& folder, const Figure& figure) {
    const fs::path path = folder / (figure.name + ".svg");
    std::error_code ignored;
    const std::string text = fs::exists(path, ignored) ? read_whole(path) : "";
    return text.find("</svg>") == std::string::npos ? "" : text;
}

// One process draws them all; it ends at the first that fails, and the next begins behind that one.
// Returns the first complaint.
std::string run_all(const std::string& gnuplot, const std::vector<Figure*>& figures,
                    const fs::path& folder) {
    std::string problem;
    for (std::size_t begin = 0; begin < figures.size();) {
        std::vector<std::string> words{gnuplot, "-d"};  // -d: nothing of the user's own settings
        for (std::size_t i = begin; i < figures.size(); ++i) {
            words.push_back(figures[i]->name + ".gp");
        }
        if (run_in(folder, words, folder / "log") == 0) break;
        if (problem.empty()) problem = complaint(folder / "log");
        while (begin < figures.size() && !drawn_svg(folder, *figures[begin]).empty()) ++begin;
        ++begin;
    }
    return problem;
}

}  // namespace

std::string find_gnuplot() {
    const char* variable = std::getenv("PATH");
    const std::string path = variable != nullptr ? variable : "";
    for (std::size_t begin = 0; begin < path.size();) {
        const std::size_t end = std::min(path.find(':', begin), path.size());
        const fs::path candidate = fs::path(path.substr(begin, end - begin)) / "gnuplot";
        std::error_code ignored;
        if (end > begin && candidate.is_absolute() && fs::is_regular_file(candidate, ignored) &&
            ::access(candidate.c_str(), X_OK) == 0) {
            return candidate.string();
        }
        begin = end + 1;
    }
    return "";
}

std::string draw(const std::string& gnuplot, std::vector<Figure*>& figures,
                 const fs::path& folder) {
    const TemporaryFolder work(fs::absolute(folder));
    for (const Figure* figure : figures) {
        write_whole(work.path() / (figure->name + ".gp"), figure->script);
    }
    const std::string problem = run_all(gnuplot, figures, work.path());
    std::size_t missing = 0;
    for (Figure* figure : figures) {
        const fs::path png = work.path() / (figure->name + ".png");
        std::error_code ignored;
        write_whole(folder / (figure->name + ".gp"), figure->script);
        const std::string drawn = drawn_svg(work.path(), *figure);
        if (drawn.empty()) {
            ++missing;
            continue;
        }
        figure->svg = polished_svg(drawn, figure->name, figure->title);
        write_whole(folder / (figure->name + ".svg"), figure->svg);
        figure->png = fs::exists(png, ignored) && fs::file_size(png, ignored) > 0;
        if (figure->png) write_whole(folder / (figure->name + ".png"), read_whole(png));
    }
    if (problem.empty() && missing == 0) return "";
    return gnuplot + " drew " + std::to_string(figures.size() - missing) + " of " +
           std::to_string(figures.size()) + " charts" + (problem.empty() ? "." : ": " + problem);
}

}  // namespace winnow::report
