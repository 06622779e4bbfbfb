"""From costs to time: the minimum time of compute, HBM and links on a chip of a slice. An estimate, and a lower bound.

For TPUs whose clock is known, a run takes no less than the compiler's own estimate of cycles. It has none for attention
kernels: they are assumed to reach `KERNEL_EFFICIENCY` of the peak.

Links: a chip sends along every torus dim that its group extends over, in both directions if the dim is a ring. A group that
fills no dim counts as a line. GPUs are connected by a switch, so all links serve any group within a machine. Between slices,
and between GPU machines, each chip sends its share over the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.planning.costs import Collective, Costs

KERNEL_EFFICIENCY = 0.5
"""Assumed, not measured on a TPU."""


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Minimum seconds of a run, by limiting resource.

    Attributes:
      compute: of products and kernels at the chip's peak.
      cycles: of all instructions by the compiler's estimate, and of kernels at `KERNEL_EFFICIENCY`; 0 if there is no estimate.
    """

    compute: float
    hbm: float
    ici: float
    network: float
    cycles: float = 0.0

    @property
    def seconds(self) -> float:
        """Time if everything overlaps."""
        return max(self.compute, self.hbm, self.ici, self.network, self.cycles)

    @property
    def seconds_without_overlap(self) -> float:
        """Time if collectives and compute do not overlap."""
        return max(self.compute, self.hbm, self.cycles) + self.ici + self.network

    @property
    def bound(self) -> str:
        """What limits the run: "cycles" (of the compiler's estimate), "compute", "HBM", "ICI" or "network"."""
        parts = [(self.cycles, "cycles"), (self.compute, "compute"), (self.hbm, "HBM"), (self.ici, "ICI")]
        return max(*parts, (self.network, "network"), key=lambda part: part[0])[1]


def roofline(costs: Costs, topology: Topology, devices: Sequence[Any]) -> Roofline:
    """The roofline of costs that were counted for one of these devices (in the mesh's order)."""
    chip = topology.chip
    share = chip.devices
    ici = network = 0.0
    for each in costs.collectives:
        inside, between = _seconds(each, topology, devices)
        ici, network = ici + each.count * inside, network + each.count * between
    compute, hbm, cycles = costs.flops * share / chip.flops, costs.bytes * share / chip.hbm_bandwidth, 0.0
    if chip.clock and costs.cycles:
        kernels = costs.kernel_flops * share / (chip.flops * KERNEL_EFFICIENCY)
        cycles = costs.cycles / chip.clock + kernels
    return Roofline(compute, hbm, ici, network, cycles)


def seconds_of(collective: Collective, topology: Topology, devices: Sequence[Any]) -> float:
    """Seconds of one collective."""
    return sum(_seconds(collective, topology, devices))


def _seconds(collective: Collective, topology: Topology, devices: Sequence[Any]) -> tuple[float, float]:
    """Seconds over the links, and over the network."""
    group = collective.group
    own = tuple(each for each in group if _domain(devices[each], topology) == _domain(devices[group[0]], topology))
    inside = _seconds_inside(dataclasses.replace(collective, group=own), topology, devices)
    if len(own) == len(group):
        return inside, 0.0
    share = collective.payload / (1 if collective.kind == "collective-permute" else len(own))
    between = dataclasses.replace(collective, group=group[: len(group) // len(own)], payload=share)
    return inside, between.sent * topology.chip.devices / topology.chip.network


def _domain(device: Any, topology: Topology) -> int:
    """Index of the device's slice or GPU machine, the reach of its links."""
    if topology.is_tpu:
        return getattr(device, "slice_index", None) or 0
    return device.id // topology.chip.chips_per_host


def _seconds_inside(collective: Collective, topology: Topology, devices: Sequence[Any]) -> float:
    size = len(collective.group)
    if size < 2:
        return 0.0
    bandwidth = _bandwidth(collective, topology, devices)
    if "all-to-all" in collective.kind and topology.is_tpu:
        # Each byte travels a quarter of the ring on average.
        return max(collective.sent, collective.payload * size / 4) / bandwidth
    return collective.sent / bandwidth


def _bandwidth(collective: Collective, topology: Topology, devices: Sequence[Any]) -> float:
    """Bytes per second that a device of the group can send over its links."""
    chip = topology.chip
    link = chip.link_bandwidth / chip.devices
    if not topology.is_tpu:
        return link * max(chip.links, 1)
    places = [devices[number].coords for number in collective.group]
    spans = [len({place[dim] for place in places}) for dim in range(len(topology.shape))]
    lanes = 0
    for dim, span in enumerate(spans):
        if span > 1:
            whole = span == topology.shape[dim]
            lanes += 2 if whole and topology.ring(dim) and span > 2 else 1
    # The link between chiplets of one chip is assumed to be as fast as one to a neighbour.
    lanes = max(lanes, 1)
    return link * (min(lanes, 2) if collective.kind == "collective-permute" else lanes)
