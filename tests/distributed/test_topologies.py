"""Topology names: the machines that they denote, and the messages for names that do not exist."""

import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.chips import CHIPS, chip_of
from mmsearch_jax.distributed.topologies import SLICES, parse


@pytest.mark.parametrize(
    ("text", "name", "chips", "devices", "host", "processes"),
    [
        ("v5p:2x2x4", "v5p:2x2x4", 16, 16, "v5p:2x2x1", 4),
        ("V5litepod:4x8", "v5e:4x8", 32, 32, "v5e:2x2", 8),
        ("v6e:2x4", "v6e:2x4", 8, 8, "v6e:2x2", 2),
        ("tpu7x:4x4x4:2", "7x:4x4x4:2", 128, 256, "7x:2x2x1", 32),
        ("v4:2x2x1", "v4:2x2x1", 4, 4, "v4:2x2x1", 1),
        ("H100:16", "h100:16", 16, 16, "h100:8", 16),
        ("a100:4", "a100:4", 4, 4, "a100:4", 4),
    ],
)
def test_a_name_is_a_chip_a_shape_and_a_number_of_slices(text, name, chips, devices, host, processes):
    topology = parse(text)
    assert (topology.name, topology.num_chips, topology.num_devices) == (name, chips, devices)
    assert (topology.host.name, topology.num_processes) == (host, processes)
    assert topology.num_hosts * topology.host.num_chips == chips


@pytest.mark.parametrize(("text", "domains"), [("v5p:4x4x4", 1), ("v5p:4x4x4:3", 3), ("h100:8", 1), ("h100:32", 4)])
def test_links_reach_a_slice_or_a_machine_of_gpus(text, domains):
    assert parse(text).num_domains == domains


@pytest.mark.parametrize("text", [f"{chip}:{shape}" for chip, shapes in SLICES.items() for shape in shapes])
def test_a_slice_is_whole_hosts_in_the_chip_s_dims(text):
    topology = parse(text)
    assert topology.name == text and len(topology.shape) == topology.chip.dims == len(topology.chip.host)
    assert all(size % own == 0 for size, own in zip(topology.shape, topology.chip.host, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5x:2x2", "no chip 'v5x' is known: did you mean 'v5p'.*known are v4, v5e"),
        ("v5p", "'v5p' cannot be read: write v5p:2x2x4, or v5p:2x2x4:2 for two slices"),
        ("v5p-128", "is an accelerator type of Google Cloud: as a topology it is v5p:4x4x4"),
        ("v5litepod-16", "as a topology it is v5e:4x4"),
        ("v5p:2x2x", "cannot be read: write v5p:2x2x4"),
        ("v5p:2x2x4:0", "cannot be read: write v5p:2x2x4"),
        ("v5p:2x2x4:2:2", "cannot be read: write v5p:2x2x4"),
        ("v5p:3x3", "'v5p:3x3' cannot be ordered: the nearest is v5p:2x2x2; slices of v5p are 2x2x1, 2x2x2"),
        ("v5e:8x4", "the nearest is v5e:4x8"),
        ("v5e:32x32:2", "the nearest is v5e:16x16"),
        ("h100:2x4", "give the number of GPUs.*h100:16"),
        ("h100", "give the number of GPUs.*h100:16"),
        ("h100:8:2", "give the number of GPUs.*h100:16"),
        ("h100:12", "up to 8 in one machine or a multiple of 8 in several"),
    ],
)
def test_a_topology_that_does_not_exist_is_refused_with_the_nearest(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_a_dim_of_a_slice_is_a_ring_where_the_chips_wrap():
    small, flat = parse("v5p:2x2x4"), parse("v5e:8x16")
    assert [small.ring(dim) for dim in range(3)] == [False, False, True]
    assert [flat.ring(dim) for dim in range(2)] == [False, True]


def test_every_chip_has_whole_figures_and_a_source():
    for chip in CHIPS.values():
        assert chip.hbm > 1e10 and chip.flops > 1e14 and chip.hbm_bandwidth > 5e11 and chip.source
        assert chip.links == 2 * chip.dims or chip.name not in SLICES
        assert chip.network < chip.link_bandwidth * max(chip.links, 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "7x"),
        ("NVIDIA H100 80GB HBM3", "h100"),
    ],
)
def test_jax_s_names_of_devices_are_known(kind, name):
    chip = chip_of(kind)
    assert chip is not None and chip.name == name
