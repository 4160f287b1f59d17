// winnow calibrate: kvquant's levels for a model, fitted on a text.
#include <winnow/winnow.h>

#include <algorithm>

#include "commands.h"
#include "files.h"
#include "flags.h"
#include "progress.h"
#include "prompt.h"
#include "signals.h"
#include "terminal.h"

namespace winnow::cli {

int calibrate_command(const Arguments& args) {
    Options options;
    std::string output;
    int most = 8192;
    auto parser = make_parser("calibrate", "Fits kvquant's levels for a model on a text.", options,
                              kModelFlags);
    add_value(*parser, "Text",
              {"-f,--file", "FILE", "a text as the model will meet it; - is stdin"}, options.file);
    add_value(*parser, "Text",
              {"--tokens", "N", "read at most so many of its tokens", 256, kIntMax}, most);
    add_value(*parser, "Output", {"-o,--output", "FILE", "the file for --kvquant-codebook"},
              output);
    if (!parse(*parser, args)) return 0;
    settle(options, "calibrate", kModelFlags);
    if (options.file.empty()) throw usage_error("`winnow calibrate` needs a text: -f FILE.");
    if (output.empty()) throw usage_error("`winnow calibrate` needs -o FILE, where to write to.");
    const Texts texts = load_texts(options);
    check_writable("-o", output);

    const InterruptScope interrupts;
    const auto model = load_model(options);
    std::vector<std::int32_t> tokens = model->tokenize(texts.user, true, false);
    tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(most)));
    std::string codebook;
    {
        ProgressBar bar(true);
        codebook = calibrate_kvquant(model, tokens, bar.callback());
    }
    replace_file("-o", output, codebook);
    write_err("calibrated on " + with_commas(tokens.size()) + " tokens: " + output + ", " +
              human_bytes(static_cast<double>(codebook.size())) + "\n");
    return 0;
}

}  // namespace winnow::cli
