"""Devices of a collective: HLO's three notations for groups, the pairs of a permutation, and groups across slices."""

from __future__ import annotations

import math
import re

import numpy as np

_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{([^}]*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTS = re.compile(r"replica_groups=\{(\{[\d,]*\}(?:,\{[\d,]*\})*)\}")
_SLICES = re.compile(r'_xla_megascale_target="\{([\d,:]+)\}')
_PAIRS = re.compile(r"source_target_pairs=\{([^=]*?)\}\}")


def groups_of(text: str, num_devices: int) -> tuple[int, ...]:
    """The group of device 0, in order; all devices if the text names none.

    Args:
      text: a collective's attributes.
      num_devices: of the slice that the program belongs to; devices of other slices follow.

    Raises:
      ValueError: the notation is unknown.
    """
    if found := _SLICES.search(text):
        ranges = [list(map(int, part.split(":"))) for part in found.group(1).split(",")]
        return tuple(num_devices * number for number in range(sum(each[-1] - each[0] + 1 for each in ranges)))
    if found := _MESH.search(text):
        axes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
        named = re.findall(r"'([^']+)'", found.group(4))
        sizes = [int(size) for size in axes.values()]
        ids = _iota(found.group(2) or str(math.prod(sizes)), found.group(3)).reshape(sizes)
        index = tuple(slice(None) if name in named else 0 for name in axes)
        return tuple(ids[index].ravel().tolist())
    if found := _IOTA.search(text):
        groups = _iota(found.group(2), found.group(3)).reshape(_numbers(found.group(1)))
        return tuple(next(group for group in groups.tolist() if 0 in group))
    if found := _LISTS.search(text):
        groups = [tuple(map(int, part.split(","))) for part in re.findall(r"\{([\d,]+)\}", found.group(1))]
        return next((group for group in groups if 0 in group), groups[0] if groups else (0,))
    if found := _PAIRS.search(text):
        pairs = {int(source): int(target) for source, target in re.findall(r"(\d+),(\d+)", found.group(1))}
        ring = [0]
        while (follower := pairs.get(ring[-1])) is not None and follower not in ring:
            ring.append(follower)
        return tuple(ring) if len(ring) > 1 else (0, *sorted(set(pairs) - {0}))[:2]
    if "replica_groups=" in text and "replica_groups={}" not in text:
        raise ValueError(f"cannot parse replica groups: {text[text.index('replica_groups=') :][:80]}")
    return tuple(range(num_devices))


def _iota(dims: str, order: str | None) -> np.ndarray:
    """Device numbers counted up in an array of these dims, then transposed by `order`."""
    shape = _numbers(dims)
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
