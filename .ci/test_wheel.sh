#!/usr/bin/env bash
# Builds the sdist, the wheel from the sdist, installs the wheel into a new environment, and runs commands from it in an empty folder.
# Usage: .ci/test_wheel.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-python3}"
version="$("$python" -c 'import sys; print(311 if sys.version_info[:2] == (3, 11) else 312)')"
constraints="$PWD/.ci/constraints-py$version.txt"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

"$python" -m venv "$work/build"
install=(-m pip install --quiet --disable-pip-version-check --constraint "$constraints")
"$work/build/bin/python" "${install[@]}" hatchling
"$work/build/bin/python" -m hatchling build --target sdist --directory "$work/sdist"
"$work/build/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheel" "$work"/sdist/*.tar.gz
"$python" -m venv "$work/installed"
"$work/installed/bin/python" "${install[@]}" "$work"/wheel/*.whl
echo "installed: $(cd "$work/wheel" && ls)"

bin="$work/installed/bin"
mkdir "$work/empty"
cd "$work/empty"
fail() { echo "test-wheel: $1" >&2; exit 1; }
if "$bin/python" -c "import configs" 2> /dev/null; then fail "a top-level package 'configs' is installed"; fi
"$bin/python" -c "import pathlib, mmsearch_jax, tools_server
for package in (mmsearch_jax, tools_server):
    assert pathlib.Path(package.__file__).with_name('py.typed').is_file(), package"
"$bin/mmsearch" quickstart --smoke
[ -f runs/smoke/report.html ] || fail "the quickstart has written no report"
photo="$("$bin/python" -c "from mmsearch_jax.core.bundled import bundled; print(bundled('assets/miniworld/photos/ajantaCave.jpg'))")"
"$bin/mmsearch" ask --json "$photo" "Which place is this?" > trajectory.json
"$bin/python" -c "import json; assert json.load(open('trajectory.json'))['turns']" || fail "ask has printed no trajectory"
"$bin/mmsearch" sft --config configs/sft_qwen2_5_vl_7b.py --print-config > config.txt
grep -q "^sft.num_steps = 1250" config.txt || fail "sft with a bundled config said: $(head -3 config.txt)"
echo "test-wheel: passed"
