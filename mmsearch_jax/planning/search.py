"""Finds the best mesh, batch and remat for a slice: estimates every setting that fits and compiles the most promising ones.

Both order and pruning use estimates; the reported figures of a candidate come from its compiled plan.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.settings import replaced
from mmsearch_jax.distributed.mesh import BATCH_AXES
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning import abstract
from mmsearch_jax.planning.abstract import Learner
from mmsearch_jax.planning.memory import HandCount, hand_count
from mmsearch_jax.planning.model_flops import Work
from mmsearch_jax.settings.commands import LearnerSettings
from mmsearch_jax.settings.learning import BatchShape

REMATS = ("full", "dots", "none")
_TENSORS, _ROWS = (1, 2, 4, 8), (1, 2, 4)
USABLE = 0.8
"""Share of the memory that the hand count may fill: the compiler loses some to fragmentation (docs/planning.md)."""
EFFICIENCY = 0.6
"""Share of the peak FLOPs that matrix products reach, to compare compute with collectives."""


@dataclasses.dataclass(frozen=True)
class SettingCandidate:
    """A setting, the hand count of its memory, and an estimate of the seconds per batch."""

    overrides: dict[str, Any]
    memory: HandCount
    seconds: float
    tokens: float

    def config(self, config: LearnerSettings) -> LearnerSettings:
        """The config with this setting."""
        return replaced(config, self.overrides)


def candidates(
    config: LearnerSettings,
    stage: str,
    model: ModelConfig,
    topology: Topology,
    remats: Sequence[str] = REMATS,
    sequences: Sequence[int] = (1, 2, 4),
    rows: Sequence[int] = (),
) -> Iterator[SettingCandidate]:
    """All settings that the slice and the hand count allow, the fastest by estimate first.

    Args:
      remats, sequences: values to try.
      rows: rows of a batch to try; by default one, two and four for each part of the mesh, and the config's.
    """
    room = USABLE * topology.chip.hbm / topology.chip.devices
    batch = abstract.stage_of(config, stage).batch
    found = []
    for mesh in _meshes(topology, sequences):
        lanes = topology.num_slices * mesh["mesh.data"] * mesh["mesh.fsdp"]
        tried = [each for each in rows if each % lanes == 0] if rows else _rows(lanes, batch.rows)
        batches = [
            {f"{stage}.batch.rows": each, f"{stage}.batch.images": _images(batch, each, lanes)} for each in tried
        ]
        if not batches:
            continue
        changed = replaced(config, {**mesh, **batches[0]})
        try:
            base = abstract.learner(changed, stage, model, abstract.mesh_without_devices(changed, topology))
        except ConfigError:
            continue
        for sizes, remat in itertools.product(batches, remats):
            asked, images = sizes.values()
            made = dataclasses.replace(
                base, shape=dataclasses.replace(base.shape, rows=asked, images=images), remat=remat
            )
            memory = hand_count(made)
            if memory.total <= room:
                seconds = estimate_seconds(made, topology)
                found.append(
                    SettingCandidate({**mesh, **sizes, "remat": remat}, memory, seconds, asked * made.shape.length)
                )
    yield from sorted(found, key=lambda candidate: candidate.seconds / candidate.tokens)


def nearest_that_fits(
    config: LearnerSettings, stage: str, model: ModelConfig, topology: Topology, scale: float
) -> SettingCandidate | None:
    """The setting with the fewest changes whose hand count, times `scale`, fits; None if there is none.

    Args:
      scale: ratio of the compiler's figure to the hand count, for the setting that does not fit.
    """
    room = topology.chip.hbm / topology.chip.devices / max(scale, 1.0)
    fitting = [each for each in candidates(config, stage, model, topology) if each.memory.total <= room]

    def changes(candidate: SettingCandidate) -> tuple[int, float]:
        different = sum(value_of(config, key) != value for key, value in candidate.overrides.items())
        return different, candidate.seconds / candidate.tokens

    return min(fitting, key=changes, default=None)


def estimate_seconds(learner: Learner, topology: Topology) -> float:
    """Seconds of a batch: compute at a usual share of the peak, followed by the collectives that the mesh's axes imply."""
    chip, mesh, text = topology.chip, learner.mesh.mesh.shape, learner.model.text
    devices = learner.mesh.mesh.size
    compute = Work.learning(learner).executed * chip.devices / (chip.flops * EFFICIENCY * devices)
    link = chip.link_bandwidth / chip.devices * (2 if topology.is_tpu else max(chip.links, 1))
    width = 2 if learner.half else 4
    weights = (
        width
        * text.num_hidden_layers
        * text.hidden_size
        * (
            2 * text.num_attention_heads * text.head_dim
            + 2 * text.num_key_value_heads * text.head_dim
            + 3 * text.intermediate_size
        )
    )
    passes = 3 + (learner.remat == "full") - (not learner.full)
    gathered = passes * weights / mesh["tensor"] * (mesh["fsdp"] - 1) / mesh["fsdp"]
    lanes = math.prod(mesh[axis] for axis in BATCH_AXES)
    tokens = learner.shape.rows * learner.shape.length / (lanes * mesh["sequence"])
    stream = width * tokens * text.hidden_size * text.num_hidden_layers
    reduced = 2 * passes * 2 * stream * (mesh["tensor"] - 1) / mesh["tensor"]
    exchanged = 2 * passes * stream * (mesh["sequence"] - 1) / mesh["sequence"]
    gradients = 2 * abstract.bytes_per_chip(learner.state.params)
    inside = gathered + reduced + exchanged + gradients * (mesh["data"] > 1)
    between = gradients / (chip.network / chip.devices) if mesh["dcn"] > 1 else 0.0
    return compute + inside / link + between


def _meshes(topology: Topology, sequences: Sequence[int]) -> Iterator[dict[str, int]]:
    slices = {"mesh.dcn": topology.num_slices} if topology.num_slices > 1 else {}
    for tensor, sequence in itertools.product(_TENSORS, sequences):
        # `make_mesh` does not split a row over several hosts.
        if topology.host.num_devices % (tensor * sequence):
            continue
        lanes = topology.num_devices // (topology.num_slices * tensor * sequence)
        for data in (1, 2, 4, 8, 16):
            if lanes % data == 0:
                yield {
                    **slices,
                    "mesh.data": data,
                    "mesh.fsdp": lanes // data,
                    "mesh.tensor": tensor,
                    "mesh.sequence": sequence,
                }


def _images(batch: BatchShape, rows: int, lanes: int) -> int:
    """Rows of images in the config's proportion to rows of tokens, rounded to a number that the mesh divides."""
    return -(-rows * batch.images // (batch.rows * lanes)) * lanes


def _rows(lanes: int, asked: int) -> Sequence[int]:
    return sorted({lanes * each for each in _ROWS} | ({asked} if asked % lanes == 0 else set()))


def value_of(config: LearnerSettings, key: str) -> Any:
    """The config's value at a dotted key."""
    section: Any = config
    for part in key.split("."):
        section = getattr(section, part)
    return section
