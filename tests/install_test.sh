#!/usr/bin/env bash
# Installs into an empty prefix, builds examples/consumer against it by find_package, runs it, and
# checks that the shared library shows nothing but its API. The README's example is that consumer.
#   install_test.sh SOURCE_DIR BUILD_DIR MODEL
set -euo pipefail
source_dir=$1 build_dir=$2 model=$3
work=$(mktemp -d "${TMPDIR:-/tmp}/winnow-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "install_test: $*" >&2; exit 1; }

python3 "$source_dir/scripts/extract_blocks.py" "$source_dir/README.md" "$source_dir" |
    grep -qx examples/consumer/main.cpp || fail "README.md does not show examples/consumer/main.cpp."

prefix=$work/prefix
cmake --install "$build_dir" --prefix "$prefix" >/dev/null
for file in bin/winnow include/winnow/winnow.h share/doc/winnow/LICENSE \
    share/doc/winnow/licences/llama.cpp-and-ggml share/doc/winnow/licences/highway; do
    [[ -f $prefix/$file ]] || fail "$file was not installed."
done
[[ -z $(find "$prefix" -iname '*ggml*.h' -o -name 'llama*.h' -o -name '*.a') ]] ||
    fail "third-party headers or static libraries were installed."
library=$(find "$prefix" -name libwinnow.so)
foreign=$(nm -DC --defined-only "$library" | cut -d' ' -f3- |
    grep -vE '^((typeinfo|typeinfo name|vtable) for )?winnow::' || true)
[[ -z $foreign ]] || fail "libwinnow.so shows foreign symbols, for example: $(head -n 3 <<<"$foreign")"
[[ -z $(LC_ALL=C grep -rIl "$build_dir" "$prefix" || true) ]] ||
    fail "an installed file names the build folder."

cp -r "$source_dir/examples/consumer" "$work/consumer"
cmake -S "$work/consumer" -B "$work/built" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
    --log-level=WARNING >/dev/null
ninja -C "$work/built" --quiet
if "$work/built/ask" "$work/no-such-file.gguf" "Hello?" 2>"$work/error"; then
    fail "a missing model was accepted."
fi
grep -q no-such-file.gguf "$work/error" || fail "the error does not name the file: $(cat "$work/error")"

[[ $("$prefix/bin/winnow" --version) == *0.1.0* ]] || fail "winnow --version names no version."
if [[ ! -f $model ]]; then
    echo "install_test: no model at $model, so the consumer was built but not run."
    exit 0
fi
answer=$("$work/built/ask" "$model" "How many days are in a week?" 2>"$work/stats")
[[ $answer == *7* || $answer == *seven* ]] || fail "the consumer answered: $answer"
grep -q "bytes of cache" "$work/stats" || fail "the consumer printed no bytes."
echo "install_test: all is well."
