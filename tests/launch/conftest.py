"""Stand-ins for the programs that the cluster scripts call."""

import pytest
import yaml

from tests.launch import fakes

# Answers like kubectl. $FAKE holds: calls, applied (the YAML), error (of apply), and one line per answer in each of
# terminalState, restarts, reason, message.
KUBECTL = r"""#!/usr/bin/env bash
printf '%s\n' "kubectl $*" | tr '\n' ' ' >> "$FAKE/calls"; echo >> "$FAKE/calls"
next() { [ -s "$FAKE/$1" ] || return 0; head -n 1 "$FAKE/$1"; [ "$(wc -l < "$FAKE/$1")" = 1 ] || sed -i 1d "$FAKE/$1"; }
case "$*" in
  "apply --filename -"*) cat > "$FAKE/applied";;
  "apply --filename "*) cat "$3" > "$FAKE/applied"; if [ -f "$FAKE/error" ]; then cat "$FAKE/error" >&2; exit 1; fi;;
  "patch --local"*) cat "$4";;
  *terminalState*) [ ! -f "$FAKE/gone" ] || exit 1; next terminalState;;
  *status.restarts*) next restarts;;
  *waiting.reason*) next reason;;
  *'items[0].status.conditions'*) next message;;
  *'type=="Failed"'*) echo "jobset failed: run1-slice-0";;
  "logs "*) echo "the trainer's last words";;
esac
"""
XPK = r"""#!/usr/bin/env bash
printf '<%s>' xpk "$@" >> "$FAKE/calls"; echo >> "$FAKE/calls"
[ -z "${XPK_FAILS:-}" ] || { echo "quota exceeded" >&2; exit 1; }
while [ $# -gt 0 ]; do [ "$1" != --output-manifest-file ] || echo "kind: JobSet" > "$2"; shift; done
"""


@pytest.fixture
def fake(tmp_path):
    """Runs a script with the fakes first on the path; returns its output, the calls, and the applied YAML."""
    run_script, state = fakes.runner(tmp_path, {"kubectl": KUBECTL, "xpk": XPK})

    def run(script, *arguments, files=(), **environment):
        done, applied = run_script(script, *arguments, files=files, **environment), state / "applied"
        return done, fakes.calls(state), list(yaml.safe_load_all(applied.read_text())) if applied.exists() else []

    return run
