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

fuzz: # libFuzzer on the GGUF and the session reader, a minute each; needs clang and libclang-rt-14-dev
	@cmake -S . -B build/fuzz -G Ninja --log-level=WARNING -DCMAKE_C_COMPILER=clang \
	    -DCMAKE_CXX_COMPILER=clang++ -DWINNOW_FUZZ=ON -DWINNOW_TESTS=OFF -DWINNOW_OPENMP=OFF
	@ninja -C build/fuzz gguf_fuzz session_fuzz
	@mkdir -p build/fuzz/corpus build/fuzz/sessions
	build/fuzz/bin/gguf_fuzz -max_total_time=60 -dict=fuzz/gguf.dict build/fuzz/corpus
	test ! -x build/bin/session_file_test || \
	    WINNOW_FUZZ_SEEDS=build/fuzz/sessions build/bin/session_file_test --gtest_brief=1 \
	    --gtest_filter='*SeedsForTheFuzzer'
	build/fuzz/bin/session_fuzz -max_total_time=60 -max_len=200000 build/fuzz/sessions

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
