#!/usr/bin/env bash
# Writes pairs of texts with the scores that the official Python metrics give them.
#
#   tests/metrics_reference.sh FOLDER OUT.jsonl [DATA]
#
# FOLDER keeps the virtual environment between calls; DATA is the folder of the shared test data.
# Exits with 77 and one sentence where the environment cannot be made.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wanted=$here/requirements-metrics.txt
env=$1/metrics-venv

skip() { echo "the official metrics are not here: $*"; exit 77; }

python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null ||
    skip "they need python3 of 3.11 to 3.13"
if ! cmp -s "$wanted" "$env/requirements.txt"; then
    rm -rf "$env"
    python3 -m venv "$env" >/dev/null 2>&1 || skip "python3 cannot make a virtual environment (Debian: python3-venv)"
    "$env/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: -r "$wanted" >"$env/pip.log" 2>&1 || {
        ! grep -q "DO NOT MATCH THE HASHES" "$env/pip.log" ||
            { echo "a package is not the one of tests/requirements-metrics.txt: its hash differs"; exit 1; }
        skip "pip could not install tests/requirements-metrics.txt ($(grep -i error "$env/pip.log" | tail -n 1))"
    }
    cp "$wanted" "$env/requirements.txt"
fi
PYTHONDONTWRITEBYTECODE=1 "$env/bin/python" "$here/metrics_reference.py" "$2" "${3:-}"
