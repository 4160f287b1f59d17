// Prompts in our own words, for where the official ones are not given.
#include <array>
#include <utility>

#include "eval/datasets/longbench.h"

namespace winnow::eval {

namespace {

constexpr const char* kPassages =
    "Below are several passages, then a question that they answer together.\n\n{context}\n\n"
    "Question: {input}\nGive the answer in a few words and nothing else.\nAnswer:";
constexpr const char* kCode = "Continue this code with its next line, and write code only.\n\n";

constexpr std::pair<std::string_view, const char*> kWording[] = {
    {"narrativeqa",
     "Read the story, then answer a question about it in one short phrase.\n\nStory:\n{context}\n\n"
     "Question: {input}\nAnswer in one short phrase, without an explanation.\nAnswer:"},
    {"qasper",
     "Read the scientific article, then answer a question about it.\n\nArticle:\n{context}\n\n"
     "Question: {input}\nAnswer in a phrase or one sentence, without an explanation. Answer yes or "
     "no where that is asked, and \"unanswerable\" where the article does not say.\nAnswer:"},
    {"multifieldqa_en",
     "Read the text, then answer a question about it briefly.\n\n{context}\n\n"
     "Question: {input}\nGive the answer and nothing else.\nAnswer:"},
    {"hotpotqa", kPassages},
    {"2wikimqa", kPassages},
    {"musique", kPassages},
    {"gov_report",
     "Summarize the following government report on one page.\n\nReport:\n{context}\n\n"
     "Summary of one page:"},
    {"qmsum",
     "Read the transcript of a meeting, then answer a question about it.\n\nTranscript:\n{context}"
     "\n\nQuestion: {input}\nAnswer in one or a few sentences.\nAnswer:"},
    {"multi_news",
     "Several news articles follow. Summarize all of them together on one page.\n\n{context}\n\n"
     "Summary of one page:"},
    {"trec",
     "Name the type of the last question. Questions with their types come first.\n\n{context}\n"
     "{input}"},
    {"triviaqa",
     "Answer the last question from its passage in a few words. Examples come first.\n\n{context}"
     "\n\n{input}"},
    {"samsum",
     "Summarize the last dialogue in a sentence or two. Examples come first.\n\n{context}\n\n"
     "{input}"},
    {"passage_count",
     "Some of the following paragraphs are repeated. Count how many different paragraphs there "
     "are.\n\n{context}\n\nHow many different paragraphs are there? Answer with the number "
     "alone.\nAnswer:"},
    {"passage_retrieval_en",
     "Numbered paragraphs follow, then a summary of one of them.\n\n{context}\n\n"
     "Summary: {input}\n\nWhich paragraph does it summarize? Answer in the form \"Paragraph 1\"."
     "\nAnswer:"},
    {"passage_retrieval_zh",
     "Numbered paragraphs follow, then a summary of one of them.\n\n{context}\n\n"
     "Summary: {input}\n\nWhich paragraph does it summarize? Answer in the form \"\u6BB5\u843D"
     "1\".\nAnswer:"},
    {"lsht",
     "Name the category of the last news text. Texts with their categories come first.\n\n"
     "{context}\n{input}"},
};

}  // namespace

std::string longbench_wording(std::string_view task) {
    if (task == "lcc") {
        return std::string(kCode) + "{context}";
    }
    if (task == "repobench-p") {
        return std::string(kCode) + "{context}{input}";
    }
    for (const auto& [name, wording] : kWording) {
        if (name == task) {
            return wording;
        }
    }
    return "{context}\n\n{input}";
}

}  // namespace winnow::eval
