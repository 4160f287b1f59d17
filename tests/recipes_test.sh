#!/usr/bin/env bash
# Carries out the recipes of AGENTS.md in a scratch copy of the tree, all four at once: adds the
# files, builds, and checks that each addition shows up and works.
#   recipes_test.sh SOURCE_DIR MODEL
set -euo pipefail
source_dir=$1 model=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/winnow-recipes.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() { echo "recipes_test: $*" >&2; exit 1; }

tree=$work/tree
mkdir "$tree"
tar -C "$source_dir" --exclude=./build --exclude=./.git -cf - . | tar -C "$tree" -xf -
added=$(python3 "$source_dir/scripts/extract_blocks.py" "$source_dir/AGENTS.md" "$tree")
for kind in src/prune/policies/ src/cache/formats/ src/model/archs/ src/kernels/; do
    grep -q "^$kind" <<<"$added" || fail "AGENTS.md adds nothing to $kind."
done

export CCACHE_BASEDIR=$tree # a scratch folder of another name finds its objects again
cmake -S "$tree" --preset release --log-level=WARNING >/dev/null
# Warnings of third-party sources would drown what matters.
ninja -C "$tree/build" winnow_cli internlm2_test peak_test >"$work/build.log" 2>&1 ||
    { grep -A 12 '^FAILED' "$work/build.log" >&2 || tail -n 20 "$work/build.log" >&2; fail "the build failed."; }
bin=$tree/build/bin

"$bin/internlm2_test"
"$bin/peak_test"
methods=$("$bin/winnow" methods)
grep -q valuenorm <<<"$methods" || fail "winnow methods does not list valuenorm."
grep -q int8 <<<"$methods" || fail "winnow methods does not list int8."

if [[ ! -f $model ]]; then
    echo "recipes_test: no model at $model, so the additions were built and listed but not run."
    exit 0
fi
text=$(head -c 3000 "$source_dir/examples/harbour.txt")
answer=$("$bin/winnow" run -m "$model" -p "$text" -n 4 --method valuenorm \
    --max-capacity-prompts 128 --quant-method int8 --nbits 8 --json)
python3 - "$answer" <<'CHECK'
import json, sys
run = json.loads(sys.argv[1])
kv = run["kv"]
assert run["options"]["method"] == "valuenorm", run["options"]
assert run["options"]["quant_method"] == "int8", run["options"]
assert all(128 <= kept <= 128 + 64 for kept in kv["kept"]), kv["kept"]
assert 8 < kv["bits_k"] < 9, kv["bits_k"]
assert kv["bytes"] < kv["bytes_full_f16"] / 2, kv
CHECK
echo "recipes_test: all four additions work."
