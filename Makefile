# Short names for the usual steps; each is one or two commands that can be typed as well.
PREFIX ?= /usr/local
MODEL ?= $(shell scripts/setup --model-path)
ASK ?= What is the registration number of the pilot boat Kestrel?

.PHONY: run test bench bench-check fuzz tidy format install setup clean

run: build/build.ninja # answers a question about a long text, with the full cache beside it
	@ninja -C build --quiet winnow_cli
	build/bin/winnow run -m "$(MODEL)" -f examples/harbour.txt -p "$(ASK)" -n 40 \
	    --method pyramidkv --nbits 4 --compare-full

test: build/build.ninja
	@ninja -C build
	ctest --test-dir build --output-on-failure

bench: build/build.ninja # one comparable line per method and width
	@ninja -C build --quiet winnow_cli
	@scripts/bench "$(MODEL)" examples/harbour.txt "$(ASK)"

bench-check: build/build.ninja # what fell by more than 10 % since bench/baseline.json
	@ninja -C build --quiet winnow_cli
	build/bin/winnow bench -m "$(MODEL)" --baseline bench/baseline.json

fuzz: # libFuzzer on the GGUF reader for a minute; needs clang and libclang-rt-14-dev
	@mkdir -p build/fuzz/corpus
	clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Isrc -Iinclude \
	    fuzz/gguf_fuzz.cpp src/gguf/*.cpp -o build/fuzz/gguf_fuzz
	build/fuzz/gguf_fuzz -max_total_time=60 -dict=fuzz/gguf.dict build/fuzz/corpus

tidy: setup # clang-tidy over our sources
	@scripts/tidy

format:
	git ls-files '*.h' '*.cpp' | xargs clang-format -i

install: build/build.ninja
	@ninja -C build winnow winnow_cli
	cmake --install build --prefix "$(PREFIX)"

build/build.ninja: setup
	@test -f $@ || cmake --preset release --log-level=WARNING

setup:
	@scripts/setup

clean:
	rm -rf build
