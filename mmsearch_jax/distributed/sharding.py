"""Shardings of arrays by the names of their dims: the rules of `distributed.rules` on a mesh of devices."""

from __future__ import annotations

from collections.abc import Sequence

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmsearch_jax.distributed.rules import RULES, Rule, Rules, rules_of, split_axes

__all__ = ["RULES", "Rule", "Rules", "named_sharding", "partition_spec", "rules_of"]


def partition_spec(
    names: Sequence[str], shape: Sequence[int], mesh: Mesh, rules: Rules = RULES, *, owner: str = "an array"
) -> PartitionSpec:
    """The spec of an array whose dims carry these logical names.

    Args:
      owner: what messages call the array, such as a parameter's path.

    Raises:
      ConfigError: an unknown name or mesh axis; mesh axes that do not divide a dim (whose rule does not say `or_whole`); a
        mesh axis that an earlier dim of the array is split over.
    """
    return PartitionSpec(*split_axes(names, shape, mesh.shape, rules, owner=owner))


def named_sharding(
    names: Sequence[str], shape: Sequence[int], mesh: Mesh, rules: Rules = RULES, *, owner: str = "an array"
) -> NamedSharding:
    """`partition_spec` on its mesh."""
    return NamedSharding(mesh, partition_spec(names, shape, mesh, rules, owner=owner))
