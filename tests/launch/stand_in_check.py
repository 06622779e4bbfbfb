"""A Python that answers `mmsearch check` at once, so that tests of scripts need not wait for it; all else is the real one."""

import sys
from pathlib import Path

# Writes the words of the check to $FAKE/checked, and to $FAKE/words as they are. With CHECK_CODE it refuses.
PROGRAM = f"""#!/usr/bin/env bash
case "$*" in
  "-c import ml_collections") exit 0;;
  "-m mmsearch_jax.commands.main check "*)
    printf '%s ' "${{@:3}}" >> "$FAKE/checked"; echo >> "$FAKE/checked"
    printf '%s\\0' "${{@:3}}" > "$FAKE/words"
    [ -z "${{CHECK_CODE:-}}" ] || {{ echo "error: the check refuses" >&2; exit "$CHECK_CODE"; }}
    exit 0;;
esac
exec {sys.executable} "$@"
"""


def write(folder: Path) -> Path:
    """Writes the program into a folder; returns its path, for the scripts' variable PYTHON."""
    path = folder / "stand-in-python"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path
