#include "report/page.h"

#include "report/script.h"
#include "report/text.h"

namespace winnow::report {

namespace {

std::string facts(const Stats& stats) {
    const Run& run = stats.run();
    std::size_t prompts = 0;
    for (std::size_t i = 0; i < run.configs.size(); ++i) {
        prompts = std::max(prompts, stats.prompts(i));
    }
    std::string text = with_commas(static_cast<double>(prompts)) +
                       (prompts == 1 ? " prompt, " : " prompts, ") +
                       std::to_string(run.configs.size()) + " configurations";
    if (run.files > 1) text += ", " + std::to_string(run.files) + " shards";
    if (!run.wording.empty()) {
        text += run.wording == "official" ? ", official wording" : ", wording: " + run.wording;
    }
    return text;
}

// Links to the files of a figure.
std::string links(const Figure& figure) {
    if (figure.svg.empty()) return "";
    std::string text = "<a href=\"" + figure.name + ".svg\">SVG</a>";
    if (figure.png) text += " <a href=\"" + figure.name + ".png\">PNG</a>";
    return text + " <a href=\"" + figure.name + ".gp\">gnuplot</a>";
}

std::string charts_html(const ChartSection& section) {
    std::string drawn;
    for (const Figure& figure : section.figures) {
        if (figure.svg.empty()) continue;
        drawn += "<figure class=\"chart\">" + inline_svg(figure.svg) + "<figcaption>" +
                 links(figure) + "</figcaption></figure>\n";
    }
    return "<h3>" + escaped(section.title) + "</h3>\n<div class=\"charts\">\n" + drawn +
           "</div>\n<p class=\"files\"><a href=\"" + section.csv + "\">CSV</a></p>\n";
}

std::string section_html(const RunPage& page) {
    const Run& run = page.stats.run();
    std::string text = "<section id=\"" + page.name + "\">\n<h2>" + escaped(page.title) +
                       " <span>" + escaped(run.model) + "</span></h2>\n<p class=\"facts\">" +
                       escaped(facts(page.stats)) + "</p>\n";
    const auto add_table = [&](const Table& table, bool sortable) {
        text += "<h3>" + escaped(table.title) + "</h3>\n" + table_html(table, sortable) +
                "<p class=\"caption\">" + escaped(table.caption) + " <a href=\"" + page.name + "-" +
                table.key + ".csv\">CSV</a></p>\n";
    };
    add_table(page.summary, true);
    for (const HeatSection& section : page.heats) {
        text += "<h3>" + escaped(section.title) + "</h3>\n" + heat_html(section, run);
        for (const Figure& figure : section.figures) {
            if (figure.svg.empty()) continue;
            text += "<span class=\"files\">" + escaped(figure.title) + " " + links(figure) +
                    "</span>\n";
        }
        text += "<span class=\"files\"><a href=\"" + section.csv + "\">CSV</a></span>\n";
    }
    for (const ChartSection& section : page.charts) text += charts_html(section);
    for (const Table& table : page.tables) add_table(table, table.key == "fidelity");
    return text + replies_html(page.stats) + "</section>\n";
}

}  // namespace

std::string page_html(const std::vector<RunPage>& pages, const std::vector<std::string>& notes) {
    std::string text =
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Winnow report</title>\n"
        "<style>\n";
    text += page_style();
    text += "</style>\n</head>\n<body>\n<header>\n<h1>Winnow report</h1>\n";
    if (pages.size() > 1) {
        text += "<nav>\n";
        for (const RunPage& page : pages) {
            text += "<a href=\"#" + page.name + "\">" + escaped(page.title) + " <span>" +
                    escaped(page.stats.run().model) + "</span></a>\n";
        }
        text += "</nav>\n";
    }
    text += "</header>\n<main>\n";
    for (const RunPage& page : pages) text += section_html(page);
    text += "</main>\n<footer>\n";
    if (!notes.empty()) {
        text += "<h2>Notes</h2>\n<ul class=\"notes\">\n";
        for (const std::string& note : notes) text += "<li>" + escaped(note) + "</li>\n";
        text += "</ul>\n";
    }
    text += "<h2>How these numbers were made</h2>\n";
    for (const RunPage& page : pages) text += origin_html(page);
    return text + "</footer>\n<script>\n" + page_script() + "</script>\n</body>\n</html>\n";
}

}  // namespace winnow::report
