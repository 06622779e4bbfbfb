"""Training checkpoints by Orbax: trained parameters, optimiser state, step and data position; written atomically.

The latest checkpoints and the best one are kept. Frozen parameters are not stored: they are loaded from the initial policy.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from mmsearch_jax.core.buckets import is_address, open_bucket
from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.learners.train_state import TrainState

_COMPLETE = "commit_success.txt"
"""Orbax's mark in a complete checkpoint in a bucket."""


@dataclasses.dataclass(frozen=True)
class Best:
    """How checkpoints are compared: a metric of their step, and whether a higher value is better."""

    metric: str
    largest: bool


class Checkpoints:
    """Checkpoints in `folder` (or at a gs:// address), by step; a context manager that waits for unfinished writes on exit.

    Args:
      keep: how many of the latest to keep.
      best: also keep the best one.
    """

    def __init__(self, folder: str | Path, keep: int = 2, best: Best | None = None):
        # Orbax writes to gs:// itself; Path would take the address for a folder.
        self._folder: Any = epath.Path(folder) if is_address(folder) else Path(folder).resolve()
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
        numbered = self._is_numbered(step)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _numbered(like) if numbered else _tree(like))
        arguments = ocp.args.PyTreeRestore(abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract))
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments))
        except (ValueError, KeyError, FileNotFoundError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"the checkpoint of step {step} in {self._folder} does not fit this config ({first}): use another --workdir"
            ) from error
        if numbered:
            learnt = dataclasses.replace(like, frozen=None)
            state = jax.tree.unflatten(jax.tree.structure(learnt), jax.tree.leaves(restored["state"]))
            return dataclasses.replace(state, frozen=like.frozen), self.read_extra(step)
        return _state(restored["state"], like), self.read_extra(step)

    def _is_numbered(self, step: int) -> bool:
        metadata = self._manager.item_metadata(step)
        names = list(getattr(metadata["state"], "tree", None) or metadata["state"] or {})
        return bool(names) and all(name[:4].isdecimal() for name in names)


def remove_unfinished(address: str) -> None:
    """Removes what a killed process left of checkpoints at a gs:// address; call it under the lock of the work directory.

    There Orbax writes under the final name and marks what is complete; it would write a step again among the old objects, and
    its database would refuse, or mix both.
    """
    bucket = open_bucket(address)
    names = bucket.list()
    complete = {name.partition("/")[0] for name in names if name.count("/") == 1 and name.endswith(f"/{_COMPLETE}")}
    for name in names:
        step = name.partition("/")[0]
        if step.isdecimal() and step not in complete:
            bucket.delete(name)


def _tree(state: TrainState) -> dict[str, Any]:
    """The trained state as a nested dict whose names are those of the parameters, so that others can restore a part by name."""
    tree: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, frozen=None)):
        *parents, last = _names(path)
        inside = tree
        for name in parents:
            inside = inside.setdefault(name, {})
        inside[last] = leaf
    return tree


def _state(tree: Mapping[str, Any], like: TrainState) -> TrainState:
    """The state of `_tree`, leaf by leaf by its name: Orbax returns names in an order of its own (layer 10 before layer 2)."""
    learnt = dataclasses.replace(like, frozen=None)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(learnt)]
    leaves = [functools.reduce(operator.getitem, _names(path), tree) for path in paths]
    return dataclasses.replace(jax.tree.unflatten(jax.tree.structure(learnt), leaves), frozen=like.frozen)


def _names(path: tuple[Any, ...]) -> list[str]:
    """The path of a leaf as names; the variable that wraps a parameter is not one of them."""
    names = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path]
    return names[:-1] if names[-1] in ("value", "raw_value") else names


def _numbered(state: TrainState) -> dict[str, Any]:
    """The form of older checkpoints: one flat dict, named by a leaf's index in the tree and its path."""
    leaves = jax.tree_util.tree_leaves_with_path(dataclasses.replace(state, frozen=None))
    return {f"{i:04d}{jax.tree_util.keystr(path)}": leaf for i, (path, leaf) in enumerate(leaves)}
