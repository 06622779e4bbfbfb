"""The published models' meshes on the devices of absent slices: laid out as asked, and every process's rows together."""

import pytest
from jax.experimental import topologies

from mmsearch_jax.configuration import load_config
from mmsearch_jax.distributed.mesh import MeshConfig, make_mesh
from mmsearch_jax.distributed.topologies import parse


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
    name = f"{machines.generation.name.replace('7x', 'tpu7x')}:{machines.slice_shape}"
    devices = topologies.get_topology_desc(name, "tpu", num_slices=machines.num_slices).devices
    sizes = load_config(f"configs/{config}.py:{topology}").mesh
    mesh = make_mesh(MeshConfig(**sizes), devices)
    assert dict(mesh.shape) == sizes.to_dict() and len(set(mesh.devices.flat)) == machines.num_devices
    rows = mesh.devices.reshape(-1, sizes.tensor * sizes.sequence)
    owners = [{(getattr(device, "slice_index", None) or 0, device.process_index) for device in row} for row in rows]
    assert all(len(owner) == 1 for owner in owners)
    order = [owner.pop() for owner in owners]
    assert order == sorted(order) and len(set(order)) == machines.num_processes
