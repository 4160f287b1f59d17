# Short names for the usual steps; each is one or two commands that can be typed as well.
PREFIX ?= /usr/local
MODEL ?= $(shell scripts/setup --model-path)
ASK ?= What is the registration number of the pilot boat Kestrel?

.PHONY: run test bench format install setup clean

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
