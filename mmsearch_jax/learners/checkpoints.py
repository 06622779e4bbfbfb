"""Training checkpoints by Orbax: parameters, optimiser, step, and where the data stood; atomic, the last few kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from mmsearch_jax.errors import CheckpointError
from mmsearch_jax.learners.train_state import TrainState


class Checkpoints:
    """Checkpoints in `folder`, by step; a context manager that waits for unfinished writes.

    Args:
      keep: how many of the latest to keep.
    """

    def __init__(self, folder: str | Path, keep: int = 2):
        self._folder = Path(folder).resolve()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, if there is one."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, extra: dict[str, Any] | None = None) -> None:
        """Starts writing a checkpoint; `extra` is plain JSON (data position, counters)."""
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(_tree(state)), extra=ocp.args.JsonSave(extra or {})),
        )

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `like`.

        Raises:
          CheckpointError: there is none, or it is of another model or optimiser.
        """
        step = self.latest_step if step is None else step
        if step is None:
            raise CheckpointError(f"no checkpoint in {self._folder}: start the run without --resume")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _tree(like))
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), extra=ocp.args.JsonRestore()),
            )
        except (ValueError, KeyError, FileNotFoundError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._folder} does not fit this config ({first}): use another --workdir"
            ) from error
        state = jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(restored["state"]))
        return state, dict(restored["extra"] or {})


def _tree(state: TrainState) -> dict[str, Any]:
    # A plain dict keyed by position-independent names: Orbax stores names, not our classes.
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {f"{i:04d}{jax.tree_util.keystr(path)}": leaf for i, (path, leaf) in enumerate(leaves)}
