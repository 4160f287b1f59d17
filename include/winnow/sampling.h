// How the next token is chosen from the logits.
#pragma once

#include <cstdint>
#include <string>

namespace winnow {

/// Options of the sampler, named as llama.cpp's flags. Defaults are greedy, so that two runs of one
/// prompt agree; llama.cpp's own default temperature is 0.8.
/// Order: penalties, top_k, top_p, min_p, temperature, draw. A grammar filters before all of them.
struct SamplingOptions {
    static constexpr uint32_t kRandomSeed = 0xFFFFFFFF;

    float temp = 0.0F;               ///< 0: greedy, ties go to the lower id; else the temperature
    int32_t top_k = 40;              ///< keep the k most likely tokens; 0 or less: all
    float top_p = 0.95F;             ///< keep the smallest set with this probability; 1: all
    float min_p = 0.05F;             ///< drop tokens below min_p x the best probability; 0: off
    float repeat_penalty = 1.0F;     ///< over 1 makes tokens of the last repeat_last_n less likely
    int32_t repeat_last_n = 64;      ///< tokens the penalties look back at; 0: off, -1: all
    float presence_penalty = 0.0F;   ///< subtracted once from each token seen
    float frequency_penalty = 0.0F;  ///< subtracted for each time a token was seen
    uint32_t seed = kRandomSeed;     ///< equal seeds draw equal tokens; kRandomSeed: a fresh one
    bool ignore_eos = false;  ///< never end of one's own accord (a finished grammar still does)
    std::string grammar;      ///< GBNF text with a rule `root`; empty: none
    std::string json_schema;  ///< JSON schema text; excludes grammar; empty: none
};

}  // namespace winnow
