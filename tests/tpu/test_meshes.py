"""The published models' meshes on slices that are not present: the requested layout, each process's rows contiguous."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.mesh import make_mesh
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.abstract import mesh_on
from mmsearch_jax.planning.costs import count
from mmsearch_jax.planning.devices import devices_of
from mmsearch_jax.planning.hlo import Module
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings
from mmsearch_jax.settings.policy import MeshConfig


@pytest.mark.parametrize(
    ("config", "topology"),
    [
        ("sft_qwen2_5_vl_3b", "v5e:2x4"),
        ("sft_qwen2_5_vl_7b", "v5e:16x16"),
        ("sft_qwen2_5_vl_7b", "v5p:2x2x4:3"),
        ("grpo_qwen2_5_vl_7b", "v5e:4x8"),
        ("grpo_qwen2_5_vl_7b", "v6e:4x4:2"),
        ("grpo_qwen2_5_vl_32b", "7x:2x2x4"),
        ("sft_qwen2_5_vl_72b", "v5e:8x16"),
        ("grpo_qwen2_5_vl_72b", "v5p:4x4x12"),
        ("sft_qwen2_5_vl_72b", "7x:4x4x4:2"),
    ],
)
def test_a_process_s_rows_are_its_own_and_follow_one_another(config, topology):
    machines = parse(topology)
    devices = devices_of(machines)
    tree = SFTSettings if config.startswith("sft") else GRPOSettings
    sizes = load(tree, f"configs/{config}.py:{topology}").settings.mesh
    mesh = make_mesh(sizes, devices)
    assert dict(mesh.shape) == dataclasses.asdict(sizes) and len(set(mesh.devices.flat)) == machines.num_devices
    rows = mesh.devices.reshape(-1, sizes.tensor * sizes.sequence)
    owners = [{(getattr(device, "slice_index", None) or 0, device.process_index) for device in row} for row in rows]
    assert all(len(owner) == 1 for owner in owners)
    order = [owner.pop() for owner in owners]
    assert order == sorted(order) and len(set(order)) == machines.num_processes


def test_a_plan_splits_rows_over_hosts_in_grpo_only():
    machines = parse("v5p:4x8x8")
    config = load(GRPOSettings, f"configs/grpo_qwen2_5_vl_7b.py:{machines.name}").settings
    mesh = mesh_on(config, machines, "grpo")
    assert (mesh.row_parts, mesh.token_parts, mesh.mesh.size) == (16, 4, 256)
    with pytest.raises(ConfigError, match="splits a row over several processes"):
        mesh_on(config, machines, "sft")


@pytest.mark.parametrize(
    ("slice_name", "sizes"),
    [
        ("v5e:4x8", {"data": 4, "fsdp": 8}),
        ("v5e:4x8", {"data": 4, "fsdp": 4, "tensor": 2}),
        ("v5e:4x8", {"fsdp": 16, "sequence": 2}),
        ("v5e:8x16", {"fsdp": 32, "sequence": 4}),
        ("v6e:8x8", {"data": 2, "fsdp": 16, "tensor": 2}),
        ("v5p:4x4x4", {"data": 4, "fsdp": 16}),
        # GRPO's on large pods: a row lies on several hosts.
        ("v5p:4x8x8", {"data": 4, "fsdp": 4, "tensor": 4, "sequence": 4}),
        ("v6e:16x16", {"data": 4, "fsdp": 4, "tensor": 4, "sequence": 4}),
        ("v5e:16x16", {"data": 2, "fsdp": 8, "tensor": 4, "sequence": 4}),
    ],
)
def test_there_is_a_route_for_the_exchanges_over_every_axis(slice_name, sizes):
    # Without a route libtpu ends the process, as it did with the orders of chips that `jax.make_mesh` gives each host.
    mesh = make_mesh(MeshConfig(**sizes), devices_of(parse(slice_name)), whole_rows=False)
    for axis in (*sizes, tuple(sizes)):

        @functools.partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=PartitionSpec(axis),
            out_specs=(PartitionSpec(), PartitionSpec(axis), PartitionSpec()),
            check_vma=False,
        )
        def exchanges(rows, axis=axis):
            gathered = jax.lax.all_gather(rows, axis, tiled=True)
            scattered = jax.lax.psum_scatter(jnp.tanh(gathered), axis, tiled=True)
            return gathered, scattered, jax.lax.psum(jnp.sin(gathered[:256]), axis)

        rows = jax.ShapeDtypeStruct((4096, 1024), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(axis)))
        text = jax.jit(exchanges).lower(rows).compile().as_text()
        # The compiler turns a small all-gather over many chips into a reduction.
        groups = {len(each.group) for each in count(Module(text), mesh.size).collectives}
        assert math.prod(mesh.shape[name] for name in (axis if isinstance(axis, tuple) else (axis,))) in groups
