"""Slices by name, and what is said of those that do not exist."""

import importlib.util

import pytest

from mmsearch_jax.distributed.chips import CHIPS, chip_of
from mmsearch_jax.errors import ConfigError
from mmsearch_jax.planning.topology import known_slices, parse_topology


@pytest.mark.parametrize(
    ("text", "chips", "host"),
    [
        ("v5p:2x2x4", 16, "v5p:2x2x1"), ("v5e:4x8", 32, "v5e:2x2"), ("v6e:2x4", 8, "v6e:2x4"), ("v7x:4x4x4", 64, "7x:2x2x1"),
        ("H100:16", 16, "h100:8"), ("a100:4", 4, "a100:4"),
    ],
)  # fmt: skip
def test_a_topology_is_a_chip_and_a_shape(text, chips, host):
    topology = parse_topology(text)
    assert topology.num_chips == chips and topology.host.name == host


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5x:2x2", "no chip 'v5x' is known: did you mean 'v5p'.*known are v4, v5e"),
        ("v5p", "cannot read the topology 'v5p': write it as v5p:2x2x4"),
        ("v5p:3x3", "no slice 'v5p:3x3' can be ordered: the nearest is v5p:2x2x2"),
        ("v5e:8x4", "the nearest is v5e:4x8"),
        ("v5e:32x32", "the nearest is v5e:16x16"),
        ("h100:2x4", "GPUs are counted.*h100:8"),
    ],
)
def test_a_topology_that_does_not_exist_is_refused_with_the_nearest(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_topology(text)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"libtpu is not installed.*pip install 'mmsearch-jax\[plan\]'"):
        parse_topology("v5p:2x2x1").devices()


def test_a_dim_of_a_slice_is_a_ring_where_the_chips_wrap():
    small, cube = parse_topology("v5p:2x2x4"), parse_topology("v5e:8x16")
    assert [small.ring(dim) for dim in range(3)] == [False, False, True]
    assert [cube.ring(dim) for dim in range(2)] == [False, True]


def test_every_chip_has_whole_figures_and_a_source():
    for chip in CHIPS.values():
        assert chip.hbm > 1e10 and chip.flops > 1e14 and chip.hbm_bandwidth > 5e11 and chip.source
        if chip.dims:
            assert chip.links == 2 * chip.dims and known_slices(chip.name)


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
