// Runs prompts under configurations: one prefill, then each configuration by itself.
#pragma once

#include <winnow/winnow.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/fidelity.h"
#include "eval/foreign.h"
#include "eval/results.h"
#include "eval/suite.h"
#include "eval/sweep.h"

namespace winnow::eval {

/// What one configuration made of a prompt.
struct Outcome {
    std::string reply;
    int generated = 0;
    std::optional<Fidelity> fidelity;
    CacheStats stats;
    SessionTiming timing;
    double decode_ms = 0.0;
};

/// Where a run stands.
struct Status {
    std::size_t done = 0, total = 0;  ///< prompts of this shard
    double share = 0.0;               ///< of all its work, 0 to 1, skipped prompts left out
    double seconds_left = -1.0;       ///< -1: not known yet
    std::string prompt;               ///< in work
    bool finished_prompt = false;     ///< told once after each
};
/// Return false to stop: the call throws an Error of kind stopped.
using StatusCallback = std::function<bool(const Status&)>;
/// The share of one prompt that is done; false stops.
using ShareCallback = std::function<bool(double share)>;

struct RunnerOptions {
    SessionOptions session;
    bool pack_decode = false;
    int decode_batch = 0;  ///< sessions of a decode step; 0: as many as keep the bits of one alone
    std::vector<std::string> pin;  ///< of every prompt, as --pin says it
    ForeignCaches foreign;         ///< fidelity: measured beside ours
    Shard shard;
    std::string command;  ///< noted in run.json
};

/// Reads the prompt once (as few times as memory allows) and answers it under each configuration.
/// Every reply and every byte is that of a separate prefill and greedy answer; with a decode_batch
/// the logits may differ by rounding.
std::vector<Outcome> run_prompt(const std::shared_ptr<const Model>& model,
                                const std::vector<Config>& configs, const Prompt& prompt,
                                const RunnerOptions& options, const ShareCallback& progress = {});

/// Reads a prompt into fresh sessions: those that see the question share one prefill, those that do
/// not (question_hidden) share one of the text before it, and read the question each for itself.
/// Pins what `pin` names first. Returns what each session's reading took. Throws a usage Error
/// where a question is to be hidden that the suite cannot tell.
std::vector<SessionTiming> read_prompt(std::span<Session* const> sessions, const Prompt& prompt,
                                       const std::vector<std::string>& pin,
                                       const ShareCallback& progress);

/// The description of a run as run.json holds it, fingerprint included.
OrderedJson describe_run(const Suite& suite, const Settings& settings, const PromptSet& prompts,
                         const std::vector<Config>& configs, const Model& model,
                         const RunnerOptions& options);

/// A line of results.jsonl.
OrderedJson result_line(const OrderedJson& run, const Prompt& prompt, const Config& config,
                        const Outcome& outcome, const PromptSet& prompts);

/// Runs what `file` does not hold yet.
void run_suite(const std::shared_ptr<const Model>& model, const OrderedJson& run,
               const PromptSet& prompts, const std::vector<Config>& configs,
               const RunnerOptions& options, ResultFile& file, const StatusCallback& status = {});

}  // namespace winnow::eval
