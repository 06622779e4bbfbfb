"""Mesh sizes and sharding rules, on simulated devices of any number (no computation)."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.mesh import AXES, BATCH_AXES, make_mesh, mesh_sizes
from mmsearch_jax.distributed.sharding import RULES, Rule, partition_spec, rules_of
from mmsearch_jax.models.axes import logical_axes
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.planning.sizes import SIZES
from mmsearch_jax.recipes.meshes import MESHES
from mmsearch_jax.settings.policy import MeshConfig, ShardingConfig

MESH = AbstractMesh((1, 1, 4, 2, 1), AXES)


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [
        (MeshConfig(), 1, (1, 1, 1, 1, 1)),
        (MeshConfig(), 256, (1, 1, 256, 1, 1)),
        (MeshConfig(data=2, tensor=4), 64, (1, 2, 8, 4, 1)),
        (MeshConfig(tensor=4, dcn=2), 64, (2, 1, 8, 4, 1)),
        (MeshConfig(fsdp=2, tensor=2, sequence=-1), 8, (1, 1, 2, 2, 2)),
    ],
)
def test_one_axis_takes_what_the_others_leave(config, devices, sizes):
    assert mesh_sizes(config, devices) == sizes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(tensor=3), "8 devices cannot be divided by 3"),
        (MeshConfig(fsdp=4), "needs 4 devices, there are 8: set one size to -1"),
    ],
)
def test_sizes_that_do_not_make_up_the_devices_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        mesh_sizes(config, 8)


def test_a_mesh_of_what_is_here():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == AXES and mesh.size == len(jax.devices())


@dataclasses.dataclass(frozen=True)
class Chip:
    """The attributes of a device that a mesh reads; slices have 2 x 2 chips, as for v5e."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    process_index: int = 0
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def chips(num_slices):
    return [Chip(4 * s + i, s, (i % 2, i // 2, 0)) for s in range(num_slices) for i in range(4)]


def test_dcn_runs_over_slices_and_every_other_axis_stays_within_one():
    # The slices come in reverse order: only the chip's own slice index counts.
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, dcn=3), chips(3)[::-1])
    assert dict(mesh.shape) == {"dcn": 3, "data": 1, "fsdp": 2, "tensor": 2, "sequence": 1}
    assert [{chip.slice_index for chip in part.flat} for part in mesh.devices] == [{0}, {1}, {2}]
    assert len(set(mesh.devices.flat)) == 12


def test_on_a_cpu_consecutive_processes_are_a_slice():
    devices = [Chip(i, 0, (0, 0, 0), process_index=i // 2, platform="cpu") for i in range(8)]
    mesh = make_mesh(MeshConfig(dcn=2), devices)
    assert [{device.process_index for device in part.flat} for part in mesh.devices] == [{0, 1}, {2, 3}]


def hosts_of_four():
    """A v5e slice of 4 x 8 chips with 2 x 2 per host: in chip order, a host's chips are not contiguous."""
    return [Chip(8 * y + x, 0, (x, y, 0), process_index=4 * (y // 2) + x // 2) for y in range(4) for x in range(8)]


@pytest.mark.parametrize("config", [MeshConfig(4, 8), MeshConfig(1, 8, 1, 4), MeshConfig(2, 4, 2, 2)])
def test_each_process_holds_rows_of_its_own_that_follow_one_another(config):
    mesh = make_mesh(config, hosts_of_four())
    rows = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)
    owners = [{chip.process_index for chip in row} for row in rows]
    assert all(len(owner) == 1 for owner in owners)
    assert [owner.pop() for owner in owners] == sorted(number for number in range(8) for _ in range(len(rows) // 8))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(sequence=8), "tensor=1 x sequence=8 splits a row over several processes, which have 4 devices"),
        (MeshConfig(tensor=4, sequence=2), "tensor=4 x sequence=2 splits a row"),
    ],
)
def test_a_row_that_would_be_of_two_processes_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        make_mesh(config, hosts_of_four())


def test_sizes_that_do_not_divide_into_processes_are_refused():
    three = [chip for chip in hosts_of_four() if chip.process_index < 3]
    assert make_mesh(MeshConfig(3, 4), three).size == 12
    with pytest.raises(ConfigError, match="6 and a process's 4 devices do not divide each other"):
        make_mesh(MeshConfig(2, 6), three)


def test_a_mesh_that_does_not_know_of_the_slices_is_refused():
    for dcn in (1, 4):
        with pytest.raises(ConfigError, match=f"mesh.dcn is {dcn}, but the devices are in 2 slices: set it to 2"):
            make_mesh(MeshConfig(dcn=dcn), chips(2))


def test_rows_are_split_over_slices_and_weights_are_not():
    assert "dcn" in BATCH_AXES
    assert not [name for name, rule in RULES.items() if "dcn" in rule.axes]


def test_a_dim_that_the_mesh_does_not_divide_is_refused_with_its_parameter_size_and_axes():
    assert partition_spec(("embed", "mlp"), (64, 6), MESH) == PartitionSpec(("fsdp",), ("tensor",))
    message = r"layers.mlp: its dim 'embed' has 62 entries, .* fsdp=4 does not divide: .* sharding_rules.embed=\(\)"
    with pytest.raises(ConfigError, match=message):
        partition_spec(("embed", "mlp"), (62, 6), MESH, owner="layers.mlp")


def test_a_dim_stays_whole_where_its_rule_says_so_or_the_axis_has_one_device():
    assert partition_spec(("embed", "vocab"), (64, 151), MESH) == PartitionSpec(("fsdp",), None)
    assert partition_spec(("vision_embed", "vision_mlp"), (64, 3), MESH) == PartitionSpec(("fsdp",), None)
    assert partition_spec(("embed", "mlp"), (62, 6), AbstractMesh((1, 4, 1, 2, 1), AXES)) == PartitionSpec(
        None, ("tensor",)
    )


def test_two_dims_over_the_same_mesh_axis_are_refused():
    rules = rules_of(ShardingConfig(embed=("tensor",)))
    message = (
        r"q_proj \(64, 8\): the rules split both 'embed' and 'heads' over the mesh axis 'tensor': .* sharding_rules"
    )
    with pytest.raises(ConfigError, match=message):
        partition_spec(("embed", "heads"), (64, 8), MESH, rules, owner="q_proj")


def test_unknown_names_are_errors():
    with pytest.raises(ConfigError, match="no sharding rule for the logical axis 'width'"):
        partition_spec(("width",), (4,), MESH)
    with pytest.raises(ConfigError, match="the rule of 'embed' names the mesh axis 'model'"):
        partition_spec(("embed",), (4,), MESH, {**RULES, "embed": Rule(("model",))})


def test_every_large_parameter_of_the_7b_is_split_over_all_chips():
    model = nnx.eval_shape(lambda: Qwen2_5_VL(ModelConfig(), rngs=nnx.Rngs(0)))
    held = total = 0
    for path, leaf in nnx.to_flat_state(nnx.split(model)[1]):
        shape = leaf.get_value().shape
        names = logical_axes(".".join(map(str, path)))
        assert len(names) == len(shape), path
        split = NamedSharding(MESH, partition_spec(names, shape, MESH)).shard_shape(shape)
        held += np.prod(split)
        total += np.prod(shape)
    assert total == pytest.approx(8.29e9, rel=0.01)
    assert held < total / 8 * 1.02


@pytest.mark.parametrize("size", SIZES)
def test_every_published_size_splits_over_its_meshes_and_over_the_engines_of_four_and_eight_devices(size):
    model = nnx.eval_shape(lambda: Qwen2_5_VL(SIZES[size], rngs=nnx.Rngs(0)))
    parameters = [
        (".".join(map(str, path)), leaf.get_value().shape) for path, leaf in nnx.to_flat_state(nnx.state(model))
    ]
    learners = {row[:3] for table in MESHES.values() for row in table[size].values()}
    whole = set()
    for sizes in {*learners, (1, 4, 1), (1, 8, 1)}:
        mesh = AbstractMesh((1, 1, *sizes), AXES)
        for path, shape in parameters:
            names = logical_axes(path)
            spec = partition_spec(names, shape, mesh, owner=path)
            rules = zip(names, spec, strict=True)
            whole |= {name for name, axes in rules if axes is None and any(mesh.shape[a] > 1 for a in RULES[name].axes)}
    assert whole == ({"vision_mlp"} if size in ("3b", "7b") else set())
