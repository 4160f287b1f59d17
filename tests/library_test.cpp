// The library in somebody else's process: several models, sessions and threads, silent, and with
// errors that can be caught.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <winnow/winnow.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "support/gguf_refusal.h"
#include "support/tiny_gguf.h"

namespace winnow {
namespace {

using Tokens = std::vector<std::int32_t>;

Tokens prompt(int count, int first) {
    Tokens tokens;
    for (int i = 0; i < count; ++i) {
        tokens.push_back((first + 37 * i + i * i) % 320);
    }
    return tokens;
}

std::int32_t best(const Session& session) {
    const auto logits = session.logits();
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                     logits.begin());
}

Tokens answer(Session& session, int count) {
    Tokens tokens;
    for (int i = 0; i < count; ++i) {
        tokens.push_back(best(session));
        session.decode(tokens.back());
    }
    return tokens;
}

CacheOptions packed(const std::string& method) {
    CacheOptions options;
    options.method = method;
    options.max_capacity_prompts = 64;
    options.nbits = 4;
    return options;
}

/// What the process writes to a descriptor while this lives, read back by text().
class Captured {
  public:
    explicit Captured(int descriptor, const std::string& path)
        : descriptor_(descriptor), path_(path), old_(::dup(descriptor)) {
        const int file = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
        ::dup2(file, descriptor);
        ::close(file);
    }
    Captured(const Captured&) = delete;
    Captured& operator=(const Captured&) = delete;
    ~Captured() { restore(); }
    std::string text() {
        restore();
        return testing::read_file(path_);
    }

  private:
    void restore() {
        if (old_ >= 0) {
            ::dup2(old_, descriptor_);
            ::close(old_);
            old_ = -1;
        }
    }
    int descriptor_;
    std::string path_;
    int old_;
};

class Library : public ::testing::Test {
  protected:
    void SetUp() override {
        write("llama", {});
        write("qwen2", {.architecture = "qwen2", .query_heads = 2, .head_dim = 64});
    }
    std::string path(const std::string& name) const { return folder_.file(name + ".gguf"); }
    std::shared_ptr<const Model> load(const std::string& name) const {
        return Model::load(path(name), {.threads = 1});
    }
    const testing::Folder& folder() const { return folder_; }

  private:
    void write(const std::string& name, const testing::TinyModelOptions& options) {
        testing::write_tiny_gguf(path(name), options);
    }
    testing::Folder folder_;
};

TEST_F(Library, TwoModelsAndSeveralSessionsDoNotDisturbEachOther) {
    const auto llama = load("llama"), qwen = load("qwen2");
    Session a(llama, packed("snapkv")), b(qwen, packed("h2o")), c(llama);
    Session alone(load("llama"), packed("snapkv"));
    alone.prefill(prompt(150, 1));
    const Tokens expected = answer(alone, 30);

    b.prefill(prompt(200, 2));
    a.prefill(prompt(150, 1));
    c.prefill(prompt(90, 3));
    Tokens of_a;
    for (int i = 0; i < 30; ++i) {
        b.decode(best(b));
        of_a.push_back(best(a));
        a.decode(of_a.back());
        c.decode(best(c));
    }
    EXPECT_EQ(of_a, expected);
    EXPECT_EQ(a.logits_hash(), alone.logits_hash());
    EXPECT_EQ(b.model().info().architecture, "qwen2");
    EXPECT_EQ(c.position(), 120);
}

TEST_F(Library, SessionsMoveAndKeepTheirModel) {
    Session kept = [&] {
        Session made(load("llama"), packed("pyramidkv"));
        made.prefill(prompt(150, 4));
        return made;
    }();
    Session copy = kept.clone();
    const Tokens expected = answer(copy, 20);
    Session moved(std::move(kept));
    Session assigned(load("qwen2"));
    assigned = std::move(moved);
    EXPECT_EQ(assigned.position(), 150);
    EXPECT_EQ(answer(assigned, 20), expected);
}

TEST_F(Library, ClonesDecodeTheSameAndAreTheirOwn) {
    const auto model = load("llama");
    for (const char* method : {"full", "h2o", "pyramidkv", "random", "snapkv", "streamingllm"}) {
        auto first = std::make_unique<Session>(model, packed(method));
        first->prefill(prompt(150, 5));
        answer(*first, 10);
        Session copy = first->clone();
        EXPECT_EQ(copy.stats().bytes, first->stats().bytes) << method;
        EXPECT_EQ(copy.stats().allocated_bytes, first->stats().allocated_bytes) << method;
        EXPECT_EQ(copy.stats().policy_bytes, first->stats().policy_bytes) << method;
        const Tokens expected = answer(*first, 150);
        const std::string hash = first->logits_hash();
        first.reset();  // a clone lives without its original
        EXPECT_EQ(answer(copy, 150), expected) << method;
        EXPECT_EQ(copy.logits_hash(), hash) << method;
    }
}

TEST_F(Library, TwoThreadsShareOneModel) {
    const auto model = load("llama");
    std::vector<Tokens> expected, found(2);
    for (const int first : {6, 7}) {
        Session session(model, packed("snapkv"));
        session.prefill(prompt(120, first));
        expected.push_back(answer(session, 25));
    }
    std::vector<std::thread> threads;
    for (const int i : {0, 1}) {
        threads.emplace_back([&, i] {
            Session session(model, packed("snapkv"));
            session.prefill(prompt(120, 6 + i));
            found[static_cast<std::size_t>(i)] = answer(session, 25);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(found, expected);
}

TEST_F(Library, OneBatchGivesEachSessionItsTokens) {
    const auto model = load("llama");
    Session a(model, packed("snapkv")), b(model, packed("h2o")), c(model);
    std::vector<Session*> batch{&a, &b, &c};
    std::vector<Session> alone;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        batch[i]->prefill(prompt(80 + 30 * static_cast<int>(i), 8));
        alone.push_back(batch[i]->clone());
    }
    for (int step = 0; step < 40; ++step) {
        Tokens tokens;
        for (std::size_t i = 0; i < batch.size(); ++i) {
            tokens.push_back(best(alone[i]));
            alone[i].decode(tokens.back());
        }
        Session::decode(batch, tokens);
        for (std::size_t i = 0; i < batch.size(); ++i) {
            for (std::size_t v = 0; v < 320; ++v) {
                ASSERT_NEAR(batch[i]->logits()[v], alone[i].logits()[v], 2e-2) << step;
            }
        }
    }
}

TEST_F(Library, WrongBatchesAreRefused) {
    const auto model = load("llama");
    Session a(model), b(load("qwen2"));
    const std::vector<Session*> twice{&a, &a}, mixed{&a, &b}, one{&a};
    EXPECT_THROW(Session::decode(twice, Tokens{1, 1}), Error);
    EXPECT_THROW(Session::decode(mixed, Tokens{1, 1}), Error);
    EXPECT_THROW(Session::decode(one, Tokens{1, 1}), Error);
    EXPECT_THROW(Session::decode({}, Tokens{}), Error);
    EXPECT_THROW(a.decode(320), Error);
    EXPECT_EQ(a.position(), 0);
}

TEST_F(Library, PrintsNothing) {
    set_log_callback({});
    Captured out(STDOUT_FILENO, folder().file("out")), err(STDERR_FILENO, folder().file("err"));
    {
        Session session(load("llama"), packed("snapkv"));
        session.prefill(prompt(100, 9));
        answer(session, 5);
        EXPECT_THROW(load("missing"), Error);
        testing::write_file(path("broken"), "GGUF, but not really");
        EXPECT_THROW(load("broken"), Error);
    }
    EXPECT_EQ(err.text(), "");
    EXPECT_EQ(out.text(), "");
}

TEST_F(Library, BadFilesAreErrorsThatNameThem) {
    const std::string sound = testing::read_file(path("llama"));
    testing::write_file(path("empty"), "");
    testing::write_file(path("text"), "once upon a time there was a model");
    testing::write_file(path("half"), sound.substr(0, sound.size() / 2));
    for (const char* name : {"empty", "text", "half", "missing"}) {
        EXPECT_TRUE(testing::refusal([&] { load(name); }, path(name)).has_value()) << name;
    }
    const std::string folder_path = folder().file("");
    EXPECT_TRUE(testing::refusal([&] { Model::load(folder_path); }, folder_path).has_value());
}

TEST_F(Library, LogsGoToTheCallback) {
    std::atomic<int> messages{0};
    set_log_callback([&](int level, const std::string& message) {
        EXPECT_GE(level, 0);
        messages += message.empty() ? 0 : 1;
        if (messages > 3) {
            throw std::runtime_error("a callback may throw");
        }
    });
    load("llama");
    EXPECT_GT(messages, 0);
    const int before = messages;
    set_log_callback({});
    load("llama");
    EXPECT_EQ(messages, before);
}

TEST_F(Library, WrongOptionsAreUsageErrors) {
    const auto model = load("llama");
    const auto refused = [&](const CacheOptions& cache, const SessionOptions& options) {
        try {
            const Session session(model, cache, options);
            return false;
        } catch (const Error& error) {
            return error.kind() == ErrorKind::usage;
        }
    };
    EXPECT_FALSE(refused({}, {}));
    EXPECT_TRUE(refused({}, {.batch = 0}));
    EXPECT_TRUE(refused({}, {.context = -1}));
    EXPECT_TRUE(refused({.method = "snapvk", .quant_method = ""}, {}));
    EXPECT_TRUE(refused({.quant_method = "kivi", .nbits = 5}, {}));
    EXPECT_TRUE(refused({.quant_method = "", .nbits = 4, .group_size = 48}, {}));
    EXPECT_TRUE(refused({.method = "snapkv", .max_capacity_prompts = 4, .quant_method = ""}, {}));
    EXPECT_THROW(Model::load(path("llama"), {.threads = -1}), Error);
}

}  // namespace
}  // namespace winnow
