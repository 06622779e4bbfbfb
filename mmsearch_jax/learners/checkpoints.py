"""Training checkpoints by Orbax: trained parameters, optimiser state, step and data position; written atomically.

The latest checkpoints and the best one are kept. Frozen parameters are not stored: they are loaded from the initial policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.learners.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class Best:
    """How checkpoints are compared: a metric of their step, and whether a higher value is better."""

    metric: str
    largest: bool


class Checkpoints:
    """Checkpoints in `folder`, by step; a context manager that waits for unfinished writes on exit.

    Args:
      keep: how many of the latest to keep.
      best: also keep the best one.
    """

    def __init__(self, folder: str | Path, keep: int = 2, best: Best | None = None):
        self._folder = Path(folder).resolve()
        policies: list[managers.PreservationPolicy] = [managers.LatestN(keep)]
        if best is not None:
            policies.append(managers.BestN(get_metric_fn=self._value, n=1, keep_checkpoints_without_metrics=False))
        self._best = best
        options = ocp.CheckpointManagerOptions(
            create=True,
            preservation_policy=managers.AnyPreservationPolicy(policies),
            # Without it Orbax does not store the metrics, and a resumed run would delete the best checkpoint.
            best_fn=None if best is None else self._value,
        )
        # Weights hardly compress, and compressing them takes longer than writing them (benchmarks/hot_spots.md).
        handlers = {"state": ocp.PyTreeCheckpointHandler(use_compression=False), "extra": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def folder(self) -> Path:
        """Folder of the checkpoints."""
        return self._folder

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints."""
        return sorted(self._manager.all_steps())

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best checkpoint, or None if none was measured."""
        assert self._best is not None
        step = self._manager.best_step()
        metrics = None if step is None else self._manager.metrics(step)
        return None if step is None or metrics is None else (step, float(metrics[self._best.metric]))

    def _value(self, metrics: Mapping[str, float]) -> float:
        """The number of which Orbax keeps the largest."""
        assert self._best is not None
        return metrics[self._best.metric] if self._best.largest else -metrics[self._best.metric]

    def save(
        self,
        step: int,
        state: TrainState,
        extra: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts writing a checkpoint, unless this step already has one.

        Args:
          extra: plain JSON (data position, counters).
          metrics: of this step; a checkpoint whose metrics lack `Best.metric` cannot become the best.
        """
        if step in self._manager.all_steps():
            return
        measured = None
        if self._best is not None and metrics is not None and self._best.metric in metrics:
            measured = {self._best.metric: float(metrics[self._best.metric])}
        self._manager.save(
            step,
            metrics=measured,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(_tree(state)), extra=ocp.args.JsonSave(dict(extra or {}))
            ),
        )

    def read_extra(self, step: int) -> dict[str, Any]:
        """The `extra` of a checkpoint."""
        restored = self._manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore()))
        return dict(restored["extra"] or {})

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint into the shapes, shardings and frozen parameters of `like`, whose mesh may be another.

        Raises:
          CheckpointError: there is no checkpoint, or it belongs to another model or optimiser.
        """
        step = self.latest_step if step is None else step
        if step is None:
            raise CheckpointError(f"no checkpoint in {self._folder}: start the run from the beginning")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _tree(like))
        arguments = ocp.args.PyTreeRestore(abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract))
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments))
        except (ValueError, KeyError, FileNotFoundError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._folder} does not fit this config ({first}): use another --workdir"
            ) from error
        learnt = dataclasses.replace(like, frozen=None)
        state = jax.tree.unflatten(jax.tree.structure(learnt), jax.tree.leaves(restored["state"]))
        return dataclasses.replace(state, frozen=like.frozen), self.read_extra(step)


def _tree(state: TrainState) -> dict[str, Any]:
    # Orbax stores names, not our classes. A name is the leaf's index in the tree and its path. Without the index, Orbax would
    # restore the leaves in the order of sorted paths (layer 10 before layer 2), not in that of the tree.
    leaves = jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, frozen=None))
    return {f"{i:04d}{jax.tree_util.keystr(path)}": leaf for i, (path, leaf) in enumerate(leaves)}
