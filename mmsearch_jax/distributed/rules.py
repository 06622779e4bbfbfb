"""The table that maps the logical axes of an array's dims to mesh axes. Names and numbers only: no JAX.

The model defines the names of a parameter's dims (`models.logical_axes`); `sharding` makes shardings of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.settings.policy import ShardingConfig


class Rule(NamedTuple):
    """Mesh axes over which a logical axis is split, in order. With `or_whole`, a dim that they do not divide stays whole."""

    axes: tuple[str, ...] = ()
    or_whole: bool = False


Rules = Mapping[str, Rule]

# Sizes that a checkpoint sets and that are not always divisible: the tokenizer's (of the tiny policy, for example), and the
# vision tower's 3,420 in the 3B and the 7B, of which each of eight devices then holds 0.8 GB of bf16 weights.
_OR_WHOLE = ("vocab", "vision_mlp")


def rules_of(config: ShardingConfig) -> Rules:
    """The rule of each logical axis."""
    names = [field.name for field in dataclasses.fields(config)]
    return {name: Rule(getattr(config, name), or_whole=name in _OR_WHOLE) for name in names}


RULES: Rules = rules_of(ShardingConfig())
"""The default rules."""


def split_axes(
    names: Sequence[str],
    shape: Sequence[int],
    mesh: Mapping[str, int],
    rules: Rules = RULES,
    *,
    owner: str = "an array",
) -> list[tuple[str, ...] | None]:
    """The mesh axes that split each dim of an array whose dims carry these logical names; None: whole.

    Args:
      mesh: size of each axis.
      owner: what messages call the array, such as a parameter's path.

    Raises:
      ConfigError: an unknown name or mesh axis; mesh axes that do not divide a dim (whose rule does not say `or_whole`); a
        mesh axis that an earlier dim of the array is split over.
    """
    split_by: dict[str, str] = {}
    spec: list[tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        axes = _mesh_axes(name, size, mesh, rules, owner)
        for axis in axes:
            if axis in split_by:
                raise ConfigError(
                    f"{owner} {tuple(shape)}: the rules split both '{split_by[axis]}' and '{name}' over the mesh axis "
                    f"'{axis}': give one of them other axes, or none, in sharding_rules"
                )
            split_by[axis] = name
        spec.append(axes or None)
    return spec


def _mesh_axes(name: str, size: int, mesh: Mapping[str, int], rules: Rules, owner: str) -> tuple[str, ...]:
    """The mesh axes that a dim is split over: none where they have one device only."""
    if name not in rules:
        raise ConfigError(f"no sharding rule for the logical axis '{name}': known are {', '.join(sorted(rules))}")
    axes, or_whole = rules[name]
    unknown = [axis for axis in axes if axis not in mesh]
    if unknown:
        raise ConfigError(f"the rule of '{name}' names the mesh axis '{unknown[0]}': known are {', '.join(mesh)}")
    parts = math.prod(mesh[axis] for axis in axes)
    if parts == 1 or (size % parts and or_whole):
        return ()
    if size % parts:
        over = " x ".join(f"{axis}={mesh[axis]}" for axis in axes)
        raise ConfigError(
            f"{owner}: its dim '{name}' has {size} entries, which the mesh's {over} does not divide: choose sizes that "
            f"do, or keep it whole with sharding_rules.{name}=()"
        )
    return axes
