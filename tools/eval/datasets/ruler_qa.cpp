// RULER's question tasks: the documents that answer a question among others, from the user's SQuAD
// and HotpotQA files.
#include <winnow/error.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "eval/datasets/json_file.h"
#include "eval/datasets/ruler_task.h"

namespace winnow::eval {

namespace {

// Numbers documents by first appearance; equal texts are one document.
class Documents {
  public:
    explicit Documents(std::vector<std::string>& texts) : texts_(texts) {}

    int number(const std::string& text) {
        const auto [found, fresh] = numbers_.emplace(text, static_cast<int>(texts_.size()));
        if (fresh) {
            texts_.push_back(text);
        }
        return found->second;
    }

  private:
    std::vector<std::string>& texts_;
    std::map<std::string, int> numbers_;
};

const Json& list_field(const Json& object, const char* name, const std::string& where) {
    const auto field = object.find(name);
    if (field == object.end() || !field->is_array()) {
        throw failure(where + ": the field \"" + name + "\" must be a list.");
    }
    return *field;
}

void require(const Questions& questions, const std::string& path, const char* form) {
    if (questions.questions.empty()) {
        throw failure("The file '" + path + "' has no answerable question; " + form + ".");
    }
}

void add_unique(std::vector<int>& numbers, int number) {
    if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) {
        numbers.push_back(number);
    }
}

// SQuAD 1.1 has no such field.
bool is_impossible(const Json& qa, const std::string& where) {
    const auto field = qa.find("is_impossible");
    if (field != qa.end() && !field->is_boolean()) {
        throw failure(where + ": the field \"is_impossible\" must be true or false.");
    }
    return field != qa.end() && field->get<bool>();
}

// The questions of one paragraph of SQuAD.
void add_paragraph(const Json& paragraph, int document, const std::vector<int>& article,
                   const std::string& where, Questions& out) {
    for (const Json& qa : list_field(paragraph, "qas", where)) {
        if (is_impossible(qa, where)) {
            continue;
        }
        Questions::Question question{.text = text_field(qa, "question", where),
                                     .answers = {},
                                     .documents = {document},
                                     .related = {}};
        for (const Json& answer : list_field(qa, "answers", where)) {
            question.answers.push_back(text_field(answer, "text", where));
        }
        for (const int other : article) {
            if (other != document) {
                add_unique(question.related, other);
            }
        }
        if (!question.answers.empty()) {
            out.questions.push_back(std::move(question));
        }
    }
}

// The answering documents first, related ones next, any others in random order.
std::vector<int> haystack_order(const Questions& from, const Questions::Question& question,
                                Random& random) {
    std::vector<int> related = question.related;
    random.shuffle(related);
    std::vector<int> others(from.documents.size());
    std::iota(others.begin(), others.end(), 0);
    random.shuffle(others);
    std::vector<int> order = question.documents;
    std::vector<bool> taken(from.documents.size(), false);
    for (const int document : question.documents) {
        taken[static_cast<std::size_t>(document)] = true;
    }
    related.insert(related.end(), others.begin(), others.end());
    for (const int document : related) {
        if (!taken[static_cast<std::size_t>(document)]) {
            taken[static_cast<std::size_t>(document)] = true;
            order.push_back(document);
        }
    }
    return order;
}

RulerDraft draft_of(const Questions& from, Random random, int index) {
    const auto at = static_cast<std::size_t>(index) % from.questions.size();
    const Questions::Question& question = from.questions[at];
    const std::vector<int> order = haystack_order(from, question, random);
    const auto make = [&from, &question, order, random](int n) {
        std::vector<int> used(order.begin(), order.begin() + n);
        Random places = random;
        places.shuffle(used);
        RulerText text;
        text.input =
            "Several documents follow, then a question about them. Give the answer and "
            "nothing else.\n\n";
        for (std::size_t i = 0; i < used.size(); ++i) {
            text.input += "Document " + std::to_string(i + 1) + ":\n" +
                          from.documents[static_cast<std::size_t>(used[i])] + "\n\n";
        }
        text.input +=
            "Answer the question from the documents above, in a few words and without "
            "anything else.\n\nQuestion: " +
            question.text;
        text.answer_prefix = "Answer:";
        text.outputs = question.answers;
        return text;
    };
    return {.make = make,
            .min_units = static_cast<int>(question.documents.size()),
            .max_units = static_cast<int>(order.size())};
}

constexpr RulerTask kTasks[] = {
    {"qa_1", 32, RulerNeed::squad,
     [](const RulerSources& sources, Random random, int index) {
         return draft_of(sources.squad, random, index);
     }},
    {"qa_2", 32, RulerNeed::hotpotqa,
     [](const RulerSources& sources, Random random, int index) {
         return draft_of(sources.hotpotqa, random, index);
     }},
};

}  // namespace

std::span<const RulerTask> qa_tasks() {
    return kTasks;
}

Questions read_squad(const std::string& path) {
    const Json file = read_json(path);
    Questions questions;
    Documents documents(questions.documents);
    int number = 0;
    for (const Json& article : list_field(file, "data", path)) {
        const std::string where = path + ", article " + std::to_string(++number);
        const Json& paragraphs = list_field(article, "paragraphs", where);
        std::vector<int> all;
        for (const Json& paragraph : paragraphs) {
            all.push_back(documents.number(text_field(paragraph, "context", where)));
        }
        for (std::size_t i = 0; i < all.size(); ++i) {
            add_paragraph(paragraphs[i], all[i], all, where, questions);
        }
    }
    require(questions, path, "SQuAD's files have data, paragraphs, qas and answers");
    return questions;
}

Questions read_hotpotqa(const std::string& path) {
    const Json file = read_json(path);
    if (!file.is_array()) {
        throw failure("The file '" + path + "' must be a list of questions, as HotpotQA's is.");
    }
    Questions questions;
    Documents documents(questions.documents);
    int number = 0;
    for (const Json& row : file) {
        const std::string where = path + ", question " + std::to_string(++number);
        Questions::Question question{.text = text_field(row, "question", where),
                                     .answers = {text_field(row, "answer", where)},
                                     .documents = {},
                                     .related = {}};
        for (const Json& item : list_field(row, "context", where)) {
            if (!item.is_array() || item.size() != 2 || !item[0].is_string() ||
                !item[1].is_array()) {
                throw failure(where + ": \"context\" must be pairs of a title and sentences.");
            }
            std::string text = item[0].get<std::string>() + "\n";
            for (const Json& sentence : item[1]) {
                text += sentence.is_string() ? sentence.get<std::string>() : std::string();
            }
            add_unique(question.documents, documents.number(text));
        }
        if (!question.documents.empty()) {
            questions.questions.push_back(std::move(question));
        }
    }
    require(questions, path, "HotpotQA's files have question, answer and context");
    return questions;
}

}  // namespace winnow::eval
