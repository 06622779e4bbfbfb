"""Mesh sizes and sharding rules, on as many devices as a spec needs (no computation)."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from mmsearch_jax.distributed.mesh import AXES, MeshConfig, make_mesh, mesh_sizes
from mmsearch_jax.distributed.sharding import RULES, partition_spec
from mmsearch_jax.errors import ConfigError
from mmsearch_jax.models.axes import logical_axes
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

MESH = AbstractMesh((1, 4, 2, 1), AXES)


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [
        (MeshConfig(), 1, (1, 1, 1, 1)),
        (MeshConfig(), 256, (1, 256, 1, 1)),
        (MeshConfig(data=2, tensor=4), 64, (2, 8, 4, 1)),
        (MeshConfig(fsdp=2, tensor=2, sequence=-1), 8, (1, 2, 2, 2)),
    ],
)
def test_one_axis_takes_what_the_others_leave(config, devices, sizes):
    assert mesh_sizes(config, devices) == sizes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(tensor=3), "8 devices cannot be divided by 3"),
        (MeshConfig(fsdp=4), "needs 4 devices, there are 8: set one size to -1"),
        (MeshConfig(data=-1), "one of them may be -1"),
        (MeshConfig(tensor=0), "sizes are at least 1"),
    ],
)
def test_sizes_that_do_not_make_up_the_devices_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        mesh_sizes(config, 8)


def test_a_mesh_of_what_is_here():
    mesh = make_mesh()
    assert mesh.axis_names == AXES and mesh.size == len(jax.devices())


def test_dims_that_do_not_divide_stay_whole_and_no_axis_is_used_twice():
    assert partition_spec(("embed", "mlp"), (64, 6), MESH) == PartitionSpec(("fsdp",), ("tensor",))
    assert partition_spec(("embed", "mlp"), (62, 6), MESH) == PartitionSpec(None, ("tensor",))
    assert partition_spec(("embed", "embed"), (64, 64), MESH) == PartitionSpec(("fsdp",), None)


def test_unknown_names_are_errors():
    with pytest.raises(ConfigError, match="no sharding rule for the logical axis 'width'"):
        partition_spec(("width",), (4,), MESH)
    with pytest.raises(ConfigError, match="the rule of 'embed' names the mesh axis 'model'"):
        partition_spec(("embed",), (4,), MESH, {**RULES, "embed": ("model",)})


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
