"""Training checkpoints by Orbax: what is learnt, optimiser, step, and where the data stood; atomic, the last few and the best.

Frozen parameters are not in them: they come from the policy that the run began with.
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
    """What makes one checkpoint better than another: a metric of its step, and whether more of it is better."""

    metric: str
    largest: bool


class Checkpoints:
    """Checkpoints in `folder`, by step; a context manager that waits for unfinished writes.

    Args:
      keep: how many of the latest to keep.
      best: keep the best one, too.
    """

    def __init__(self, folder: str | Path, keep: int = 2, best: Best | None = None):
        self._folder = Path(folder).resolve()
        policies: list[managers.PreservationPolicy] = [managers.LatestN(keep)]
        if best is not None:
            # Orbax keeps the largest.
            sign = 1.0 if best.largest else -1.0
            policies.append(
                managers.BestN(
                    get_metric_fn=lambda metrics: sign * metrics[best.metric],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._best = best
        options = ocp.CheckpointManagerOptions(
            create=True, preservation_policy=managers.AnyPreservationPolicy(policies)
        )
        # Weights hardly shrink, and packing them takes longer than writing them (benchmarks/hot_spots.md).
        handlers = {"state": ocp.PyTreeCheckpointHandler(use_compression=False), "extra": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder

    @property
    def latest_step(self) -> int | None:
        """Step of the newest whole checkpoint, if there is one."""
        return self._manager.latest_step()

    @property
    def steps(self) -> list[int]:
        """Steps of all whole checkpoints."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: TrainState,
        extra: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts writing a checkpoint, unless there is one of this step.

        Args:
          extra: plain JSON (data position, counters).
          metrics: of this step; without `Best.metric` in them the checkpoint is not in the running for the best.
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
        """Reads a checkpoint into the shapes, shardings and frozen parameters of `like`, whatever mesh it was written on.

        Raises:
          CheckpointError: there is none, or it is of another model or optimiser.
        """
        step = self.latest_step if step is None else step
        if step is None:
            raise CheckpointError(f"no checkpoint in {self._folder}: start the run anew")
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
    # Orbax stores names, not our classes. A name is the leaf's number in the tree's order and its path: without the number,
    # the order of the restored leaves would be that of sorted paths (layer 10 before layer 2), not the tree's own.
    leaves = jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, frozen=None))
    return {f"{i:04d}{jax.tree_util.keystr(path)}": leaf for i, (path, leaf) in enumerate(leaves)}
