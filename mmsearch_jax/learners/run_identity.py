"""What makes two runs the same: the settings that a run's numbers depend on, kept with each checkpoint. Loads no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.json_files import json_object
from mmsearch_jax.learners.run_folder import CHECKPOINTS

IDENTITY = "identity"
_EXTRA = Path("extra", "metadata")
"""The file in which Orbax's JsonCheckpointHandler keeps what `Checkpoints.save` calls `extra`."""


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, so that an error can name the exact setting."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def require_same(identity: Mapping[str, Any], saved: Mapping[str, Any], checkpoint: str) -> None:
    """Compares a run with the one that made a checkpoint; a setting that only one of them names says nothing.

    Args:
      identity, saved: settings by dotted name.
      checkpoint: what the error calls the checkpoint.

    Raises:
      CheckpointError: a setting differs; the message names it and both values.
    """
    for name, value in identity.items():
        if name in saved and saved[name] != value:
            raise CheckpointError(
                f"the checkpoint of {checkpoint} was made with {name} = {saved[name]}, this "
                f"run has {value}: set it back, or use another --workdir"
            )


def require_resumable(workdir: Path, phase: str, identity: Mapping[str, Any]) -> None:
    """Compares a run with the newest checkpoint of this phase in a local work directory, if there is one.

    Raises:
      CheckpointError: it was made with other settings, or its record cannot be read.
    """
    folder = workdir / CHECKPOINTS / phase
    steps = [int(each.name) for each in folder.glob("*") if each.name.isdecimal() and (each / _EXTRA).is_file()]
    if not steps:
        return
    saved = json_object(folder / str(max(steps)) / _EXTRA, CheckpointError).get(IDENTITY) or {}
    require_same(flat(identity), saved, f"step {max(steps)} in {folder}")
