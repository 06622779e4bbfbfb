# shellcheck shell=bash
# Checks the training command before anything is requested, started or billed (`mmsearch check`). Sourced; needs fail() and, for
# a dry run, dry_run=1.
#
#   check_command [OPTION OF mmsearch check]... -- COMMAND...
#
# It runs with $PYTHON, the repository's .venv or python3, whichever has ml_collections; it needs no JAX.

check_command() {
  local root candidate python=""
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  for candidate in "${PYTHON:-}" "$root/.venv/bin/python" python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import ml_collections' 2> /dev/null; then python="$candidate"; break; fi
  done
  if [ -z "$python" ]; then
    [ -n "${dry_run:-}" ] || fail "no Python with ml_collections, which checks the command: pip install ml_collections (or set PYTHON)"
    echo "note: the command is not checked, because no Python here has ml_collections" >&2
    return 0
  fi
  PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -m mmsearch_jax.commands.main check "$@" >&2 || exit 2
}
