"""The mesh of each published size on each machine: one table, and the values that follow from a topology.

The table gives the smallest group of devices that holds one copy of the weights. `data` (and `dcn` between slices) takes the
rest of the topology, which costs little with LoRA: only the adapters' gradients cross it. In GRPO a mini-batch fills only a few
rows, whatever the size of the pod, so there `data` stops at `MOST_ROWS` and the other devices split the rows.

Groups are sized by hand for LoRA, bf16 and `remat=full`: weights over the group, a row's layer inputs over `sequence`, and for
GRPO a second copy over each host's chips with its caches. `mmsearch plan` compiles the programs and reports what fits.
"""

from __future__ import annotations

import math

import ml_collections

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import Topology, parse

# Stage -> size -> chip -> (fsdp, tensor, sequence); for GRPO also the slots of a host's engine.
MESHES = {
    "sft": {
        "3b": {"v5e": (4, 1, 1), "v5p": (4, 1, 1), "v6e": (4, 1, 1), "7x": (8, 1, 1), "h100": (8, 1, 1), "h200": (8, 1, 1)},
        "7b": {"v5e": (8, 1, 1), "v5p": (4, 1, 1), "v6e": (4, 1, 1), "7x": (8, 1, 1), "h100": (8, 1, 1), "h200": (8, 1, 1)},
        "32b": {"v5e": (16, 1, 4), "v5p": (8, 1, 1), "v6e": (16, 1, 2), "7x": (8, 1, 1), "h100": (8, 1, 1), "h200": (8, 1, 1)},
        "72b": {
            "v5e": (32, 1, 4), "v5p": (16, 1, 1), "v6e": (32, 1, 4), "7x": (16, 1, 1), "h100": (16, 1, 1), "h200": (8, 1, 1),
        },
    },
    # A host's engine holds all weights: 32b and 72b do not fit the hosts of v5e and v6e, nor one GPU. A 7x host's eight devices
    # do not divide the 7b's 28 heads.
    "grpo": {
        "3b": {
            "v5e": (4, 1, 2, 16), "v5p": (4, 1, 1, 64), "v6e": (4, 1, 1, 24), "7x": (8, 1, 1, 64), "h100": (8, 1, 1, 32),
            "h200": (8, 1, 1, 64),
        },
        "7b": {
            "v5e": (8, 1, 4, 16), "v5p": (4, 1, 1, 64), "v6e": (4, 1, 2, 32), "h100": (8, 1, 1, 32), "h200": (8, 1, 1, 64),
        },
        "32b": {"v5p": (8, 1, 2, 32), "7x": (8, 1, 2, 48)},
        "72b": {"v5p": (16, 1, 4, 16), "7x": (16, 1, 2, 64)},
    },
}  # fmt: skip
KEY_VALUE_HEADS = {"3b": 2, "7b": 4, "32b": 8, "72b": 8}
GOOD_ROWS, MOST_ROWS = 8, 16
"""A mini-batch of the paper has 64 trajectories of about 3,000 tokens: 16 rows of 12,288. Fewer rows leave less of the last
batch empty (`python -m benchmarks.fill`)."""
AS_LARGE_AS = {"v4": "v6e", "a100": "h100", "b200": "h200"}
"""Chips with at least the memory of another and as many devices per host: what fits one fits the other."""


def lay_out(config: ml_collections.ConfigDict, stage: str, size: str, name: str) -> Topology:
    """Sets a config's mesh for a topology, and for GRPO its engine's sizes; returns the topology.

    Args:
      config: of SFT or GRPO.
      stage: "sft" or "grpo".
      size: such as "7b".
      name: topology in the syntax of `distributed.topologies.parse`.

    Raises:
      ConfigError: the topology does not exist, or the size does not fit it; the message lists valid choices.
    """
    topology, table = parse(name), MESHES[stage][size]
    chip = topology.chip.name
    sizes = table.get(AS_LARGE_AS.get(chip, chip))
    if sizes is None:
        raise ConfigError(
            f"{stage} of the {size} has no mesh on {chip}, only on {', '.join(table)}; or set --config.mesh.fsdp and the "
            "other axes yourself, without a topology after the config's file name"
        )
    fsdp, tensor, sequence, *slots = sizes
    group, per_slice = fsdp * tensor * sequence, topology.num_devices // topology.num_slices
    if per_slice % group:
        raise ConfigError(
            f"{stage} of the {size} on {chip} needs groups of {group} devices, {topology.name} has "
            f"{per_slice} per slice: use a larger one, or set config.mesh yourself"
        )
    data = per_slice // group
    # On GPUs `fsdp` would then cross machines.
    if stage == "grpo" and topology.is_tpu:
        data, tensor, sequence = _fewer_rows(topology.num_slices * fsdp, data, tensor, sequence, KEY_VALUE_HEADS[size])
    config.mesh.update({
        "dcn": topology.num_slices, "data": data, "fsdp": fsdp, "tensor": tensor, "sequence": sequence,
    })  # fmt: skip
    if slots:
        # Each process has its own engine over all of its devices.
        config.engine.update({"num_slots": slots[0], "tensor": topology.num_devices // topology.num_processes})
    return topology


def _fewer_rows(other: int, data: int, tensor: int, sequence: int, heads: int) -> tuple[int, int, int]:
    """The sizes of data, tensor and sequence, with devices taken from `data` until a batch has few enough rows.

    First for `sequence`, while attention can give each device its own key/value heads. Beyond that the devices along `sequence`
    repeat each other's attention, a small part of the work at these lengths, and `tensor` takes the heads.

    Args:
      other: product of the other axes over which rows are split.
      heads: key/value heads.
    """
    while other * data > GOOD_ROWS and data % 2 == 0 and heads % (2 * tensor * sequence) == 0:
        data, sequence = data // 2, 2 * sequence
    while other * data > MOST_ROWS and data % 2 == 0 and heads % (2 * tensor) == 0:
        data, tensor = data // 2, 2 * tensor
    return data, tensor, sequence


def num_rows(config: ml_collections.ConfigDict, at_least: int) -> int:
    """Rows of a global batch: the smallest multiple of the mesh's row shards that is at least `at_least`."""
    parts = config.mesh.dcn * config.mesh.data * config.mesh.fsdp
    return parts * max(1, math.ceil(at_least / parts))
