"""The plans of the 7B's programs, compiled for slices that are not present, with the limits that CI checks."""

import dataclasses
import math

import pytest

from mmsearch_jax.core.config_files import load
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning.advice import advice
from mmsearch_jax.planning.analyse import analyse, hand_arguments
from mmsearch_jax.planning.hlo import Module
from mmsearch_jax.planning.memory import hand_count
from mmsearch_jax.planning.programs import programs_of
from mmsearch_jax.planning.sizes import SIZES
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings

# One row of the batch for each pair of chips, as in the configs.
SLICES = {"v5p:2x2x4": ("fsdp=8", "tensor=2"), "v5e:4x8": ("fsdp=8", "tensor=4")}
MODEL = SIZES["7b"]


def programs(stage, slice_name, *more):
    """The stage's programs by name."""
    overrides = [f"--config.mesh.{axis}" for axis in SLICES.get(slice_name, ())] + list(more)
    tree = SFTSettings if stage == "sft" else GRPOSettings
    config = load(tree, f"configs/{stage}_qwen2_5_vl_7b.py", overrides).settings
    return {program.name: program for program in programs_of(config, MODEL, parse(slice_name), (stage,))}


@pytest.fixture(
    scope="module",
    # Each is compiled once, even if several processes run the tests (--dist loadgroup).
    params=[
        pytest.param((stage, name), marks=pytest.mark.xdist_group(f"{stage}-{name}"), id=f"{stage}-{name}")
        for stage in ("sft", "grpo")
        for name in SLICES
    ],
)
def compiled(request):
    """The plan and the compiled text of the learner's program."""
    stage, name = request.param
    program = programs(stage, name)["sft update" if stage == "sft" else "grpo batch"]
    return analyse(program, parse(name))


def test_the_program_fits_and_the_memory_that_it_fills_is_the_hand_count_s(compiled):
    plan, _ = compiled
    assert plan.fits
    assert hand_arguments(plan.program) == pytest.approx(plan.memory.arguments, rel=0.02)
    # The hand count excludes code and fragmentation.
    assert hand_count(plan.program.learner).total == pytest.approx(plan.memory.peak, rel=0.1)


def test_operations_are_those_of_the_analytic_count(compiled):
    plan, _ = compiled
    assert plan.costs.unknown == ()
    assert plan.costs.flops * plan.devices == pytest.approx(plan.program.work.executed, rel=0.05)


def test_attention_is_the_splash_kernel_and_no_square_of_scores_is_made(compiled):
    plan, text = compiled
    layers, whole = MODEL.text.num_hidden_layers, len(MODEL.vision.fullatt_block_indexes)
    assert plan.costs.kernels == {
        "splash_fwd (causal)": 2 * layers,
        "splash_dq (causal)": layers,
        "splash_dkv (causal)": layers,
        "splash_fwd (segments)": whole,
    }
    shape = plan.program.learner.shape
    squares = [
        array
        for block in Module(text).computations.values()
        for instruction in block.values()
        for array in instruction.arrays
        if any(array.dims.count(length) > 1 for length in (shape.length, shape.patches))
    ]
    assert squares == []


def test_no_chip_gathers_a_whole_stack_of_weights(compiled):
    plan, _ = compiled
    width, hidden = MODEL.text.hidden_size, MODEL.text.intermediate_size
    gathered = [each for each in plan.costs.collectives if each.kind == "all-gather"]
    # The largest allowed tensor: a layer's kernel or the vocabulary projection, gathered over fsdp.
    tensor = plan.program.mesh.shape["tensor"]
    vocabulary = 2 * width * MODEL.text.vocab_size / tensor
    assert gathered and max(each.payload for each in gathered) <= max(vocabulary, 2 * width * hidden / tensor)
    for each in gathered:
        dims = [int(size) for size in each.shape.split("[")[1].rstrip("]").split(",")]
        # The tower's layers come in groups: seven with windows and one without.
        stack = dims[0] in (MODEL.text.num_hidden_layers, MODEL.vision.depth, 8, 7) and math.prod(dims[1:]) > 1e6
        assert not stack, each


def test_a_mesh_that_does_not_divide_the_slice_is_refused():
    with pytest.raises(ConfigError, match="16 devices cannot be divided by 3"):
        programs("sft", "v5p:2x2x4", "--config.mesh.fsdp=-1", "--config.mesh.tensor=3")


def test_a_batch_that_does_not_divide_the_mesh_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"sft.batch.rows is 8, but the mesh splits it 16 ways .*set it to 16"):
        programs("sft", "v5p:2x2x4", "--config.mesh.fsdp=16", "--config.mesh.tensor=1")


def test_what_does_not_fit_is_said_with_what_the_compiler_needed_and_the_nearest_that_does():
    """Decode with 256 slots on four chips of 16 GB: too much by about one vocabulary projection."""
    sizes = ("num_slots=512", "decode_steps=1", f"max_length={12288 * 4}")
    overrides = [f"--config.engine.{size}" for size in sizes]
    config = load(GRPOSettings, "configs/grpo_qwen2_5_vl_7b.py", overrides).settings
    model = dataclasses.replace(MODEL, text=dataclasses.replace(MODEL.text, num_hidden_layers=2))
    topology = parse("v5e:2x2")
    (program,) = programs_of(config, model, topology, ("decode",))
    plan, _ = analyse(program, topology)
    assert not plan.fits and plan.costs is None and plan.needed > plan.available
    slots = int(advice(config, model, topology, plan).split("num_slots=")[1].split(" ")[0])
    assert 0 < slots < 512
