// RULER's samples: what each task holds, their length, that they are the same everywhere.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "eval/datasets/json_file.h"
#include "eval/datasets/random.h"
#include "eval/datasets/ruler.h"
#include "support/dataset_files.h"

namespace winnow::eval {
namespace {

using testing::error_text;
using testing::fresh_folder;
using testing::write_file;

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

int count_of(const std::string& text, const std::string& part) {
    int count = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++count;
    }
    return count;
}

// Essays of the test's own, so that the samples are the same on every machine.
std::string essays() {
    const std::string folder = fresh_folder("ruler_essays");
    Random random(1, "essay", 0);
    for (const char* name : {"/b.txt", "/a.txt"}) {
        std::string text;
        for (int i = 0; i < 3000; ++i) {
            for (std::uint64_t letters = 2 + random.below(8); letters > 0; --letters) {
                text += static_cast<char>('a' + random.below(26));
            }
            text += random.below(12) == 0 ? ".\n" : " ";
        }
        write_file(folder + name, text);
    }
    return folder;
}

// A list of different words, one a line.
std::string word_list(int count) {
    std::string words;
    for (int i = 0; i < count; ++i) {
        for (int digits = i, k = 0; k < 4; ++k, digits /= 26) {
            words += static_cast<char>('a' + digits % 26);
        }
        words += "\n";
    }
    return words;
}

RulerOptions options_for(const std::string& task, int length = 1024, int samples = 3) {
    static const std::string folder = essays();
    RulerOptions options;
    options.tasks = {task};
    options.length = length;
    options.samples = samples;
    options.haystack_dir = folder;
    return options;
}

Dataset generate(const RulerOptions& options) {
    return generate_ruler(options, testing::piece_tokenizer());
}

std::vector<std::string> synthetic_tasks() {
    std::vector<std::string> tasks = ruler_tasks();
    std::erase_if(tasks, [](const std::string& task) { return task.starts_with("qa_"); });
    return tasks;
}

TEST(Ruler, ElevenTasksAsLongAsAsked) {
    ASSERT_EQ(synthetic_tasks().size(), 11U);
    const Tokenizer tokenizer = testing::piece_tokenizer();
    for (const std::string& task : synthetic_tasks()) {
        for (const int length : {1024, 4096}) {
            RulerOptions options = options_for(task, length);
            options.template_tokens = 20;
            const Dataset found = generate(options);
            ASSERT_EQ(found.samples.size(), 3U);
            EXPECT_EQ(found.wording, "ours");
            for (const Sample& sample : found.samples) {
                const int tokens = tokenizer.count(sample.input + " " + sample.answer_prefix) + 20 +
                                   sample.max_new_tokens;
                EXPECT_EQ(sample.length, tokens);
                EXPECT_LE(tokens, length) << task;
                // A unit of niah_multikey_3 is two codes, about 60 tokens.
                const int slack = task == "niah_multikey_3" ? 80 : length * 3 / 100;
                EXPECT_GE(tokens, length - slack) << task << " at " << length;
                EXPECT_EQ(sample.max_new_tokens, ruler_new_tokens(task));
            }
        }
    }
}

TEST(Ruler, TheSameOnEveryMachine) {
    // FNV-1a over all samples. A changed number means that published results change with it.
    std::uint64_t hash = 0xCBF29CE484222325U;
    for (const std::string& task : synthetic_tasks()) {
        for (const Sample& sample : generate(options_for(task, 1024, 2)).samples) {
            std::string text = sample.input + "|" + sample.answer_prefix;
            for (const std::string& output : sample.outputs) {
                text += "|" + output;
            }
            for (const char c : text) {
                hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
            }
        }
    }
    EXPECT_EQ(hash, 10560753463886160937U);
}

TEST(Ruler, SamplesComeInAnyOrder) {
    for (const std::string& task : synthetic_tasks()) {
        const RulerOptions options = options_for(task, 2048, 4);
        const Dataset all = generate(options);
        const RulerGenerator generator(options, testing::piece_tokenizer());
        EXPECT_EQ(generator.tasks(), std::vector<std::string>{task});
        for (const int i : {3, 1, 2}) {
            EXPECT_EQ(generator.sample(task, i).input,
                      all.samples[static_cast<std::size_t>(i)].input);
        }
        EXPECT_EQ(generator.sample(task, 700).index, 700);
        EXPECT_TRUE(has(error_text([&] { generator.sample("qa_1", 0); }), "none of the tasks"));
    }
}

TEST(Ruler, FewTokenizationsPerSample) {
    for (const std::string& task : synthetic_tasks()) {
        const Tokenizer plain = testing::piece_tokenizer();
        int calls = 0;
        Tokenizer counting = plain;
        counting.tokenize = [&](std::string_view text) {
            ++calls;
            return plain.tokenize(text);
        };
        generate_ruler(options_for(task, 4096, 20), counting);
        EXPECT_LE(calls, 20 * 8) << task;
    }
}

TEST(Ruler, SamplesDependOnSeedAndIndexAlone) {
    for (const std::string& task : synthetic_tasks()) {
        const std::vector<Sample> few = generate(options_for(task, 1024, 2)).samples;
        const std::vector<Sample> more = generate(options_for(task, 1024, 4)).samples;
        EXPECT_EQ(few[1].input, more[1].input) << task;
        EXPECT_EQ(more[3].index, 3);
        EXPECT_NE(more[0].outputs, more[1].outputs);
        RulerOptions other = options_for(task, 1024, 1);
        other.seed = 43;
        EXPECT_NE(generate(other).samples[0].outputs, more[0].outputs);
    }
}

TEST(Ruler, NeedleTasksHideWhatTheyAskFor) {
    const struct {
        const char* task;
        int needles, outputs;
        const char* needle;
    } cases[] = {
        {"niah_single_1", 1, 1, "The secret number of "},
        {"niah_single_2", 1, 1, "The secret number of "},
        {"niah_single_3", 1, 1, "The secret code of "},
        {"niah_multikey_1", 4, 1, "The secret number of "},
        {"niah_multikey_2", 0, 1, "The secret number of "},
        {"niah_multikey_3", 0, 1, "The secret code of "},
        {"niah_multivalue", 4, 4, "One secret number of "},
        {"niah_multiquery", 4, 4, "The secret number of "},
    };
    for (const auto& wanted : cases) {
        for (const Sample& sample : generate(options_for(wanted.task, 2048, 5)).samples) {
            const std::string& text = sample.input;
            EXPECT_EQ(static_cast<int>(sample.outputs.size()), wanted.outputs);
            std::set<std::string> distinct(sample.outputs.begin(), sample.outputs.end());
            EXPECT_EQ(distinct.size(), sample.outputs.size());
            for (const std::string& output : sample.outputs) {
                EXPECT_EQ(count_of(text, " is " + output + "."), 1) << wanted.task;
                EXPECT_EQ(output.size(), has(wanted.needle, "code") ? 36U : 7U);
            }
            const int hidden = count_of(text, wanted.needle);
            EXPECT_TRUE(wanted.needles > 0 ? hidden == wanted.needles : hidden > 20) << hidden;
            EXPECT_TRUE(text.ends_with(" given in the text above?"));
            EXPECT_TRUE(has(sample.answer_prefix, wanted.outputs > 1 ? " given in the text are"
                                                                     : " given in the text is"));
            EXPECT_FALSE(text.ends_with(sample.answer_prefix));
        }
    }
}

TEST(Ruler, NeedlesStandAtEveryDepth) {
    int early = 0;
    int late = 0;
    for (const Sample& sample : generate(options_for("niah_single_2", 1024, 60)).samples) {
        const std::size_t at = sample.input.find("The secret number of ");
        early += at < sample.input.size() / 3 ? 1 : 0;
        late += at > sample.input.size() * 2 / 3 ? 1 : 0;
        // At the end of a sentence, or where the essay begins or ends.
        const char before = sample.input[at - 2];
        EXPECT_TRUE(before == '.' || sample.input[at - 1] == '\n' || at > sample.input.size() - 180)
            << sample.input.substr(at - 20, 60);
    }
    EXPECT_GT(early, 8);
    EXPECT_GT(late, 8);
}

TEST(Ruler, ChainsCanBeFollowed) {
    for (const Sample& sample : generate(options_for("vt", 1024, 5)).samples) {
        ASSERT_EQ(sample.outputs.size(), 5U);
        // The second question is the sample's, the first one the example's.
        const std::string text = sample.input.substr(sample.input.find("The text below", 1));
        const std::size_t asked = text.find("have the value ");
        const std::string value = text.substr(asked + 15, 5);
        EXPECT_EQ(count_of(text, "Set "), 5);
        EXPECT_TRUE(has(text, "Set " + sample.outputs[0] + " to " + value + "."));
        for (std::size_t i = 1; i < 5; ++i) {
            EXPECT_TRUE(has(text, "Set " + sample.outputs[i] + " to " + sample.outputs[i - 1]));
            EXPECT_LT(text.find("Set " + sample.outputs[i - 1]),
                      text.find("Set " + sample.outputs[i]));
        }
        EXPECT_EQ(sample.answer_prefix, "Answer: 5 variables have the value " + value + ":");
    }
}

std::map<std::string, int> words_between(const std::string& text, const std::string& from,
                                         const std::string& to) {
    const std::size_t start = text.rfind(from) + from.size();
    std::istringstream in(text.substr(start, text.find(to, start) - start));
    std::map<std::string, int> counts;
    for (std::string word; in >> word;) {
        ++counts[word];
    }
    return counts;
}

TEST(Ruler, CommonWordsAreRepeatedAsPrescribed) {
    for (const int length : {1024, 4096}) {
        const int most = length < 4096 ? 6 : 30;
        const int least = length < 4096 ? 1 : 3;
        for (const Sample& sample : generate(options_for("cwe", length)).samples) {
            ASSERT_EQ(sample.outputs.size(), 10U);
            std::map<std::string, int> counts =
                words_between(sample.input, "most frequent ones.\n", "\nQuestion:");
            int others = 0;
            for (const auto& [word, times] : counts) {
                const bool common = std::find(sample.outputs.begin(), sample.outputs.end(), word) !=
                                    sample.outputs.end();
                const bool number = word.back() == '.';
                EXPECT_EQ(times, common ? most : number ? 1 : least) << word;
                others += common || number ? 0 : 1;
            }
            EXPECT_GT(others, 20);
        }
    }
}

TEST(Ruler, FrequentWordsAreTheAnswer) {
    for (const Sample& sample : generate(options_for("fwe", 4096)).samples) {
        std::map<std::string, int> counts =
            words_between(sample.input, "most frequent words. ", "\nQuestion:");
        EXPECT_GT(counts["..."], counts[sample.outputs[0]]);
        counts.erase("...");
        std::vector<std::pair<int, std::string>> order;
        for (const auto& [word, times] : counts) {
            order.emplace_back(-times, word);
        }
        std::sort(order.begin(), order.end());
        ASSERT_GT(order.size(), 4U);
        for (std::size_t i = 0; i < 3; ++i) {
            EXPECT_EQ(order[i].second, sample.outputs[i]);
        }
        EXPECT_LT(order[2].first, order[3].first);
    }
}

TEST(Ruler, RawPromptsEndWithTheOpening) {
    RulerOptions options = options_for("niah_single_1");
    const Sample chat = generate(options).samples[0];
    options.chat_template = false;
    const Sample raw = generate(options).samples[0];
    EXPECT_EQ(raw.input, chat.input + " " + chat.answer_prefix);
    EXPECT_EQ(raw.answer_prefix, "");
    EXPECT_FALSE(raw.chat_template);
    EXPECT_EQ(raw.length, chat.length);
}

TEST(Ruler, SaysWhatIsMissing) {
    const auto message = [](const RulerOptions& options) {
        return error_text([&] { generate(options); });
    };
    RulerOptions options = options_for("niah_single_2");
    options.haystack_dir = "";
    EXPECT_TRUE(has(message(options),
                    "failure: RULER's niah_single_2 hides its needles in essays: "
                    "name a folder of .txt files with --haystack."));
    options.haystack_dir = fresh_folder("ruler_no_essays");
    EXPECT_TRUE(has(message(options), "--haystack, which RULER's niah_single_2 needs, names "));
    EXPECT_TRUE(has(message(options), "ruler_no_essays, which holds no text"));
    EXPECT_TRUE(has(message(options_for("qa_1")), "SQuAD's dev-v2.0.json: name that file with"));
    EXPECT_TRUE(has(message(options_for("qa_2")), "hotpot_dev_distractor_v1.json"));
    EXPECT_TRUE(
        has(message(options_for("niah")), "usage: 'niah' is no RULER task; there are niah_"));
    EXPECT_TRUE(has(message(options_for("cwe", 300)), "usage: RULER's cwe takes at least "));
    EXPECT_TRUE(has(message(options_for("cwe", 300)), "a length of 300 is too short"));
    const RulerGenerator one(options_for("cwe"), testing::piece_tokenizer());
    EXPECT_TRUE(has(error_text([&] { (void)one.sample("vt", 0); }),
                    "usage: RULER's vt is none of the tasks asked for"));
    options = options_for("cwe");
    options.words_file = fresh_folder("ruler_words") + "/words.txt";
    EXPECT_TRUE(has(message(options), "words.txt' cannot be read"));
    write_file(options.words_file, "one\ntwo\r\n\n two \n");
    EXPECT_TRUE(has(message(options), "has 2 different words"));
    write_file(options.words_file, word_list(1200));
    EXPECT_EQ(generate(options).samples[0].outputs[0].size(), 4U);
    options.tasks = {"niah_single_1"};
    EXPECT_EQ(generate(options).samples[0].answer_prefix.find('-'),
              std::string("The secret number of abcd").size());
}

// The list ends where the words do: a sample is then shorter than it may be.
TEST(Ruler, ShortWordListsGiveShortLists) {
    RulerOptions options = options_for("cwe", 65536, 1);
    options.words_file = fresh_folder("ruler_words_few") + "/words.txt";
    write_file(options.words_file, word_list(1000));
    const Sample sample = generate(options).samples[0];
    EXPECT_EQ(words_between(sample.input, "most frequent ones.\n", "\nQuestion:").size(),
              960U + 10 * 30 + 950 * 3);
}

}  // namespace
}  // namespace winnow::eval
