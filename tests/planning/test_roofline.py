"""Times from costs, against values computed by hand."""

import dataclasses

import pytest

from mmsearch_jax.distributed.chips import CHIPS
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.analyse import memory_in_error
from mmsearch_jax.planning.costs import Collective, Costs
from mmsearch_jax.planning.roofline import roofline, seconds_of


@dataclasses.dataclass
class Device:
    """A position in a slice's torus."""

    coords: tuple[int, int, int]
    slice_index: int = 0
    id: int = 0


# v5p:2x2x4 in row-major order of (x, y, z).
DEVICES = [Device((x, y, z)) for x in range(2) for y in range(2) for z in range(4)]
TWO_SLICES = [Device(each.coords, number) for number in (0, 1) for each in DEVICES]
SLICE = parse("v5p:2x2x4")


def exchange(kind, group, payload=1e9):
    """A collective with a payload of one gigabyte."""
    return Collective(kind, 1, payload, group, "bf16[500000000]", "")


@pytest.mark.parametrize(
    ("kind", "group", "seconds"),
    [
        # A ring of four in both directions: 200 GB/s for three quarters of the array.
        ("all-gather", (0, 1, 2, 3), 0.75e9 / 200e9),
        ("reduce-scatter", (0, 1, 2, 3), 0.75e9 / 200e9),
        ("all-reduce", (0, 1, 2, 3), 1.5e9 / 200e9),
        # Two neighbours: one link.
        ("all-gather", (0, 8), 0.5e9 / 100e9),
        # Over all dims: one link to each of two neighbours, and a ring.
        ("all-gather", tuple(range(16)), 1e9 * 15 / 16 / 400e9),
        ("collective-permute", (0, 1, 2, 3), 1e9 / 200e9),
        ("all-to-all", (0, 1, 2, 3), 1e9 / 200e9),
        ("all-reduce", (0,), 0),
    ],
)
def test_an_exchange_takes_what_its_ring_can_carry(kind, group, seconds):
    assert seconds_of(exchange(kind, group), SLICE, DEVICES) == pytest.approx(seconds)


def test_between_slices_each_chip_exchanges_its_share_over_the_network():
    two = parse("v5p:2x2x4:2")
    # Over neighbours of both slices: half of it between the two (one link), then a quarter over the network at 50 Gb/s.
    seconds = seconds_of(exchange("all-gather", (0, 8, 16, 24)), two, TWO_SLICES)
    assert seconds == pytest.approx(0.5e9 / 100e9 + 0.25e9 / 6.25e9)
    assert seconds_of(exchange("collective-permute", (0, 16)), two, TWO_SLICES) == pytest.approx(1e9 / 6.25e9)


def test_links_of_gpus_reach_the_machine_and_the_network_the_others():
    devices = [Device((0, 0, 0), id=number) for number in range(16)]
    inside, both = (seconds_of(exchange("all-gather", tuple(range(n))), parse("h100:16"), devices) for n in (8, 16))
    assert inside == pytest.approx(0.875e9 / (18 * 25e9))
    assert both == pytest.approx(inside + 1e9 / 8 / 2 / 50e9)


def test_the_slowest_of_three_is_the_bound():
    line = roofline(Costs(459e12, 2765e9 * 0.5, (), {}, ()), SLICE, DEVICES)
    assert (line.compute, line.hbm, line.ici, line.bound) == (1.0, 0.5, 0.0, "compute")
    line = roofline(Costs(1e12, 1e9, (exchange("all-gather", (0, 8), 1e12),), {}, ()), SLICE, DEVICES)
    assert line.bound == "ICI" and line.seconds == pytest.approx(5) and line.seconds_without_overlap > 5
    costs = Costs(459e12, 1e9, (exchange("all-reduce", (0, 16), 62.5e9),), {}, ())
    line = roofline(costs, parse("v5p:2x2x4:2"), TWO_SLICES)
    assert line.bound == "network" and (line.ici, line.network) == (0, 10) and line.seconds_without_overlap == 11


def test_the_compiler_s_cycles_and_its_kernels_bound_a_step():
    # 1.75 GHz, and a kernel at half of the peak.
    costs = Costs(459e12, 2765e9, (), {}, (), cycles=3.5e9, kernel_flops=229.5e12)
    line = roofline(costs, SLICE, DEVICES)
    assert (line.compute, line.cycles, line.bound, line.seconds) == (1.0, 3.0, "cycles", 3.0)
    # The clock of a 7x is not known.
    assert roofline(costs, parse("7x:2x2x1"), DEVICES).cycles == 0


@pytest.mark.parametrize(("chip", "cells"), [("v5e", 4 * 128**2), ("v5p", 8 * 128**2), ("v6e", 4 * 256**2)])
def test_clocks_follow_from_the_peaks(chip, cells):
    assert CHIPS[chip].flops == pytest.approx(2 * cells * CHIPS[chip].clock, rel=0.005)


def test_a_device_that_is_half_a_chip_has_half_its_rates():
    line = roofline(Costs(2307e12 / 2, 0, (), {}, ()), parse("7x:2x2x1"), DEVICES)
    assert line.compute == 1.0


def test_what_was_needed_is_read_from_the_compiler_s_refusal():
    messages = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 34.25G of 15.75G hbm. Exceeded hbm capacity by 18.50G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (34.25G) exceeds available "
        "HBM (15.75G).",
    )
    for message in messages:
        assert memory_in_error(message) == (34.25 * 2**30, 15.75 * 2**30)
    assert memory_in_error("INTERNAL: something else") is None
