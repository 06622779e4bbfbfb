"""Which devices exchange: HLO's three ways of writing the groups of a collective, and the pairs of a permutation."""

from __future__ import annotations

import math
import re

import numpy as np

_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTS = re.compile(r"replica_groups=\{(\{[\d,]*\}(?:,\{[\d,]*\})*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{([^=]*?)\}\}")


def groups_of(text: str, num_devices: int) -> tuple[int, ...]:
    """The group that device 0 is in, in order; all devices where none are named.

    Args:
      text: a collective's attributes.
    """
    if found := _MESH.search(text):
        axes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
        named = re.findall(r"'([^']+)'", found.group(2))
        ids = np.arange(math.prod(map(int, axes.values()))).reshape([int(size) for size in axes.values()])
        index = tuple(slice(None) if name in named else 0 for name in axes)
        return tuple(ids[index].ravel().tolist())
    if found := _IOTA.search(text):
        shape, dims = (tuple(map(int, found.group(i).split(","))) for i in (1, 2))
        ids = np.arange(math.prod(dims)).reshape(dims)
        if found.group(3):
            ids = ids.transpose([int(axis) for axis in found.group(3).split(",")])
        groups = ids.reshape(shape)
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
    return tuple(range(num_devices))
