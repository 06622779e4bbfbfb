#!/usr/bin/env bash
# Creates .venv in the repository with one extra, unless it exists: launch/install.sh tpu|cuda12|cuda13
set -euo pipefail

cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "error: which extra? launch/install.sh tpu, cuda12 or cuda13" >&2; exit 2; }
do_it() { if [ -n "${MMSEARCH_DRY_RUN:-}" ]; then printf '+'; printf ' %q' "$@"; printf '\n'; else "$@"; fi; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }

python=""
for name in python3 python3.13 python3.12 python3.11; do
  if [ -z "$python" ] && new_enough "$name"; then python="$name"; fi
done
if [ -z "$python" ]; then
  # Some TPU images have only Python 3.10.
  do_it sudo apt-get update -q
  do_it sudo apt-get install -y -q python3.11 python3.11-venv
  python=python3.11
fi
[ -x .venv/bin/python ] || do_it "$python" -m venv .venv
version="$("$python" -c 'import sys; print(311 if sys.version_info[:2] == (3, 11) else 312)')"
do_it .venv/bin/python -m pip install --quiet --constraint ".ci/constraints-py$version.txt" --editable ".[$1]"
