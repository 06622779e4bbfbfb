"""The published models' configs: on every topology the mesh uses all devices, and rows, heads and prompts divide."""

import dataclasses
import itertools
import math

import pytest

from mmsearch_jax.core import config_files
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data.pipeline import num_lanes
from mmsearch_jax.distributed.mesh import mesh_sizes
from mmsearch_jax.distributed.topologies import SLICES, parse
from mmsearch_jax.recipes.meshes import AS_LARGE_AS, MESHES
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings

# Query heads, key/value heads, MLP width of each published config.json.
MODELS = {"3b": (16, 2, 11008), "7b": (28, 4, 18944), "32b": (40, 8, 27648), "72b": (64, 8, 29568)}
GPUS = ("8", "16", "32", "128")
CASES = [
    (stage, size, f"{chip}:{shape}")
    for stage, sizes in MESHES.items()
    for size, table in sizes.items()
    for chip in (*table, *(chip for chip, like in AS_LARGE_AS.items() if like in table))
    for shape in SLICES.get(chip, GPUS)
]


def loaded(path, *overrides):
    tree = GRPOSettings if path.startswith("grpo") else SFTSettings
    return config_files.load(tree, f"configs/{path}", overrides).settings


def load(stage, size, topology):
    return loaded(f"{stage}_qwen2_5_vl_{size}.py:{topology}")


def fits(stage, size, topology):
    machines = parse(topology)
    chip = AS_LARGE_AS.get(machines.chip.name, machines.chip.name)
    return machines.num_devices % math.prod(MESHES[stage][size][chip][:3]) == 0


@pytest.mark.parametrize(("stage", "size"), itertools.product(MESHES, MODELS))
def test_every_topology_that_holds_a_model_gets_a_mesh_that_divides(stage, size):
    heads, kv_heads, _ = MODELS[size]
    tried = [case for case in CASES if case[:2] == (stage, size) and fits(*case)]
    assert len(tried) >= 10
    for case in tried:
        config, machines = load(*case), parse(case[2])
        mesh, batch = config.mesh, getattr(config, stage).batch
        assert math.prod(dataclasses.astuple(mesh)) == machines.num_devices, case
        assert math.prod(mesh_sizes(mesh, machines.num_devices)) == machines.num_devices
        ways = mesh.dcn * mesh.data * mesh.fsdp
        assert batch.rows % ways == batch.images % ways == batch.length % mesh.sequence == 0, case
        assert heads % mesh.tensor == kv_heads % mesh.tensor == kv_heads % mesh.sequence == 0, case
        if stage == "sft":
            assert kv_heads % (mesh.tensor * mesh.sequence) == 0, case
            # Each row belongs to one process, and all processes have the same number of rows.
            assert (machines.num_devices // machines.num_processes) % (mesh.tensor * mesh.sequence) == 0, case
            assert batch.rows % machines.num_processes == 0, case
            processes = machines.num_processes
            lanes = num_lanes(batch, config.sft.data.lanes, processes)
            assert lanes == processes * max(1, 8 // processes) and batch.rows % lanes == 0, case
        else:
            assert config.grpo.prompts_per_step % machines.num_processes == 0, case
            assert config.engine.tensor <= machines.num_devices // machines.num_processes, case
            assert heads % config.engine.tensor == 0, case


def test_a_large_pod_splits_grpo_s_rows_and_not_its_mini_batches():
    meshes = [load("grpo", "7b", name).mesh for name in ("v5p:2x2x1", "v5p:2x2x4", "v5p:4x4x4", "v5p:4x8x8")]
    sizes = [(mesh.data, mesh.fsdp, mesh.tensor, mesh.sequence) for mesh in meshes]
    assert sizes == [(1, 4, 1, 1), (2, 4, 1, 2), (4, 4, 1, 4), (4, 4, 4, 4)]
    # On GPUs the weights stay on one machine.
    assert dataclasses.astuple(load("grpo", "7b", "h200:16").mesh)[:4] == (2, 8, 1, 1)


def test_the_paper_s_batches_come_out_on_the_default_machines():
    sft, grpo = loaded("sft_qwen2_5_vl_7b.py"), loaded("grpo_qwen2_5_vl_7b.py")
    assert (sft.sft.num_steps, sft.sft.batch.rows, sft.sft.batch.images, sft.sft.optimizer.warmup_steps) == (
        1250,
        8,
        32,
        125,
    )
    assert (grpo.grpo.num_steps, grpo.grpo.prompts_per_step, grpo.grpo.batch.rows) == (1560, 64, 8)
    assert (sft.lora.rank, grpo.grpo.group_size, grpo.engine.tensor, grpo.engine.num_slots) == (8, 8, 4, 64)


def test_slices_become_the_dcn_axis():
    one, two = load("sft", "72b", "v5p:4x4x4"), load("sft", "72b", "v5p:4x4x4:2")
    assert two.mesh == dataclasses.replace(one.mesh, dcn=2)
    assert two.sft.batch.rows == 2 * one.sft.batch.rows and two.sft.num_steps == math.ceil(one.sft.num_steps / 2)


def test_what_is_set_on_the_command_line_goes_before_the_table():
    config = loaded("sft_qwen2_5_vl_7b.py:v5e:4x8", "--config.mesh.fsdp=32", "--config.mesh.data=1")
    assert (config.mesh.data, config.mesh.fsdp) == (1, 32)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sft_qwen2_5_vl_7b.py:v9:2x2", "no chip 'v9' is known: did you mean 'v4'"),
        ("sft_qwen2_5_vl_7b.py:v5p:3x3x3", "slices of v5p are 2x2x1, 2x2x2"),
        ("sft_qwen2_5_vl_7b.py:v5p", "cannot be read: write v5p:2x2x4, or v5p:2x2x4:2 for two slices"),
        ("sft_qwen2_5_vl_7b.py:v5p:2x2x4:none", "cannot be read"),
        ("sft_qwen2_5_vl_7b.py:h100:12", "up to 8 in one machine or a multiple of 8 in several, such as h100:16"),
        ("grpo_qwen2_5_vl_72b.py:v5e:16x16", "grpo of the 72b has no mesh on v5e, only on v5p, 7x; or set"),
        ("sft_qwen2_5_vl_72b.py:v5e:4x4", "needs groups of 128 devices, v5e:4x4 has 16 per slice: use a larger one"),
        ("sft_qwen2_5_vl_7b.py:h100:4", "needs groups of 8 devices, h100:4 has 4 per slice"),
        ("tiny_sft.py:v5e:4x4", "get_config takes no argument, so remove 'v5e:4x4'"),
    ],
)
def test_a_topology_that_does_not_do_is_refused_with_what_does(path, message):
    with pytest.raises(ConfigError, match=message):
        loaded(path)
