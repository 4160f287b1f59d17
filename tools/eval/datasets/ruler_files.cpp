// RULER's samples as JSONL: ours written and read back, and the official files.
#include <winnow/error.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>

#include "eval/datasets/json_file.h"
#include "eval/datasets/ruler.h"

namespace winnow::eval {

namespace {

namespace fs = std::filesystem;

// The task that a file's name starts with: niah_multikey_3 of niah_multikey_3_4096.jsonl.
std::string task_of(const fs::path& file) {
    const std::string stem = file.stem().string();
    for (const std::string& task : ruler_tasks()) {
        if (stem == task || stem.starts_with(task + "_") || stem.starts_with(task + "-")) {
            return task;
        }
    }
    return {};
}

void add_file(std::map<std::string, fs::path>& files, const std::string& task,
              const fs::path& file) {
    const auto [found, fresh] = files.emplace(task, file);
    if (!fresh) {
        throw failure("There are two files of RULER's " + task + ", '" + found->second.string() +
                      "' and '" + file.string() + "'; name one of them instead of the folder.");
    }
}

std::map<std::string, fs::path> files_of(const std::string& path) {
    std::map<std::string, fs::path> files;
    std::error_code bad;
    if (!fs::is_directory(path, bad)) {
        if (!fs::exists(path, bad)) {
            throw failure("The RULER samples '" + path +
                          "' are missing; a file or a folder of <task>.jsonl belongs there.");
        }
        const std::string task = task_of(path);
        if (task.empty()) {
            throw failure("The name of '" + path +
                          "' starts with no RULER task; rename it to <task>.jsonl, such as "
                          "niah_single_1.jsonl.");
        }
        files[task] = path;
        return files;
    }
    for (const auto& entry : fs::directory_iterator(path, bad)) {
        if (const std::string task = task_of(entry.path());
            entry.path().extension() == ".jsonl" && !task.empty()) {
            add_file(files, task, entry.path());
        }
    }
    for (const std::string& task : ruler_tasks()) {
        const fs::path file = fs::path(path) / task / "validation.jsonl";
        if (fs::is_regular_file(file, bad)) {
            add_file(files, task, file);
        }
    }
    return files;
}

bool ends_line(std::string_view text, std::size_t at) {
    return text.find('\n', at) == std::string_view::npos;
}

// Where the answer's opening starts in the last line of an official prompt: behind its "Answer:"
// mark's space, or behind its last question mark. The whole length where there is none.
std::size_t opening_of(std::string_view input) {
    const std::size_t mark = std::max(input.rfind(" Answer:") + 1, input.rfind("\nAnswer:") + 1);
    if (mark != 0 && ends_line(input, mark)) {
        return mark;
    }
    const std::size_t question = input.rfind("? ");
    if (question != std::string_view::npos && ends_line(input, question)) {
        return question + 2;
    }
    return input.size();
}

std::string_view without_last_space(std::string_view text) {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
        text.remove_suffix(1);
    }
    return text;
}

std::string optional_text(const Json& row, const char* name, const std::string& where) {
    return row.contains(name) ? text_field(row, name, where) : std::string();
}

// Divides a row's text into the user's message and the answer's opening, or joins the two.
void set_prompt(const Json& row, const std::string& where, bool chat_template, Sample& sample) {
    std::string input = text_field(row, "input", where);
    std::string opening = optional_text(row, "answer_prefix", where);
    if (opening.empty()) {
        opening = optional_text(row, "gen_prefix", where);
    }
    const bool inside = !opening.empty() && input.ends_with(opening);
    if (!chat_template) {
        const bool spaced = input.ends_with(' ') || input.ends_with('\n') ||
                            opening.starts_with(' ') || opening.empty();
        sample.input = inside ? input : input + (spaced ? "" : " ") + opening;
        return;
    }
    std::size_t end = input.size();
    if (inside) {
        end -= opening.size();
    } else if (opening.empty()) {
        end = opening_of(input);
        opening = input.substr(end);
    }
    sample.input = without_last_space(std::string_view(input).substr(0, end));
    sample.answer_prefix = without_last_space(opening);
    const std::size_t first = sample.answer_prefix.find_first_not_of(' ');
    sample.answer_prefix.erase(0, std::min(first, sample.answer_prefix.size()));
}

// The rows of one file; `wording` becomes theirs, which is the official one unless a row says so.
void read_file(const std::string& file, const std::string& task, int samples, bool chat_template,
               std::string& wording, std::vector<Sample>& out) {
    const std::size_t before = out.size();
    read_jsonl(file, [&](const Json& row, const std::string& where) {
        Sample sample;
        sample.task = task;
        sample.index = int_field(row, "index", static_cast<int>(out.size() - before), where);
        sample.outputs = texts_field(row, "outputs", where);
        sample.length = int_field(row, "length", 0, where);
        sample.max_new_tokens = ruler_new_tokens(task);
        sample.chat_template = chat_template;
        if (sample.outputs.empty()) {
            throw failure(where + ": the field \"outputs\" is empty; it must hold an answer.");
        }
        set_prompt(row, where, chat_template, sample);
        const std::string words =
            row.contains("wording") ? text_field(row, "wording", where) : std::string("official");
        if (!wording.empty() && wording != words) {
            throw failure(where + " is in " + words + " wording and others are in " + wording +
                          " wording; a run takes samples of one kind.");
        }
        wording = words;
        out.push_back(std::move(sample));
        return samples <= 0 || static_cast<int>(out.size() - before) < samples;
    });
    if (out.size() == before) {
        throw failure("The file '" + file + "' has no samples.");
    }
}

}  // namespace

std::vector<std::string> write_ruler(const std::string& folder, std::span<const Sample> samples,
                                     const std::string& wording) {
    std::map<std::string, std::vector<nlohmann::ordered_json>> lines;
    for (const Sample& sample : samples) {
        nlohmann::ordered_json line;
        const std::string& opening = sample.answer_prefix;
        line["index"] = sample.index;
        line["input"] = opening.empty() ? sample.input : sample.input + " " + opening;
        line["outputs"] = sample.outputs;
        line["length"] = sample.length;
        if (!opening.empty()) {
            line["answer_prefix"] = opening;
        }
        line["wording"] = wording;
        lines[sample.task].push_back(std::move(line));
    }
    std::error_code bad;
    fs::create_directories(folder, bad);
    if (bad) {
        throw failure("The folder '" + folder + "' cannot be made: " + bad.message() + ".");
    }
    std::vector<std::string> paths;
    for (const auto& [task, rows] : lines) {
        paths.push_back((fs::path(folder) / (task + ".jsonl")).string());
        write_jsonl(paths.back(), rows);
    }
    return paths;
}

Dataset load_ruler(const std::string& path, const std::vector<std::string>& tasks, int samples,
                   bool chat_template) {
    const std::map<std::string, fs::path> files = files_of(path);
    for (const std::string& task : tasks) {
        ruler_new_tokens(task);  // refuses unknown names
        if (!files.contains(task)) {
            throw failure("RULER's " + task + " is missing: " + task +
                          ".jsonl with its samples belongs in '" + path + "'.");
        }
    }
    Dataset dataset;
    dataset.wording.clear();
    for (const std::string& task : ruler_tasks()) {
        const auto file = files.find(task);
        const bool asked =
            tasks.empty() || std::find(tasks.begin(), tasks.end(), task) != tasks.end();
        if (asked && file != files.end()) {
            read_file(file->second.string(), task, samples, chat_template, dataset.wording,
                      dataset.samples);
        }
    }
    if (dataset.samples.empty()) {
        throw failure("The folder '" + path +
                      "' has no RULER samples; files such as niah_single_1.jsonl belong there.");
    }
    return dataset;
}

}  // namespace winnow::eval
