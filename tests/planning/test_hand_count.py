"""The hand count from sizes only equals the one from the abstract state that the learner would build."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mmsearch_jax.core.config_files import load
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.logical_axes import logical_axes, lora_shapes, parameter_shapes
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.planning import abstract, hand_count, memory
from mmsearch_jax.planning.sizes import SIZES
from mmsearch_jax.settings.commands import SFTSettings
from mmsearch_jax.settings.policy import LoRAConfig

TINY = ModelConfig.from_pretrained("assets/tiny-base")


@pytest.mark.parametrize("model", [TINY, ModelConfig()], ids=["tied", "7b"])
def test_parameters_have_the_names_shapes_and_axes_of_the_model(model):
    config = LoRAConfig(4, targets=("q_proj", "down_proj"))

    def make():
        return add_lora(Qwen2_5_VL(model, rngs=nnx.Rngs(0), dtype=jnp.float32), config)

    state = nnx.split(nnx.eval_shape(make))[1]
    made = {".".join(map(str, path)): leaf.get_value().shape for path, leaf in nnx.to_flat_state(state)}
    assert {**parameter_shapes(model), **lora_shapes(model, 4, config.targets)} == made
    assert all(len(logical_axes(path)) == len(shape) for path, shape in made.items())


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("lora.rank=0", "remat=dots"),
        ("mesh.fsdp=4", "mesh.tensor=4", "mesh.data=1", "sft.freeze=('language',)", "lora.rank=0"),
        ("sharding_rules.embed=()", "dtype=float32"),
    ],
    ids=["lora", "full", "frozen language", "whole weights"],
)
def test_the_count_is_that_of_the_abstract_state(overrides):
    given = [f"--config.{text}" for text in overrides]
    config = load(SFTSettings, "configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4", given).settings
    mesh = abstract.mesh_without_devices(config, parse("v5p:2x2x4"))
    planned = memory.hand_count(abstract.learner(config, "sft", SIZES["7b"], mesh))
    counted = hand_count.count(hand_count.sizes_of(config, config.sft, SIZES["7b"], dict(mesh.mesh.shape)))
    for name, value in vars(planned).items():
        assert getattr(counted, name) == pytest.approx(value, rel=1e-4, abs=1e3), name


def test_the_engine_s_bytes_are_its_weights_and_its_caches():
    config = load(SFTSettings, "configs/sft_qwen2_5_vl_7b.py", ["--config.engine.num_slots=2"]).settings
    weights = sum(jax.numpy.prod(jnp.asarray(shape, jnp.float32)) for shape in parameter_shapes(ModelConfig()).values())
    caches = 28 * 2 * 2 * 12288 * 4 * 128
    assert hand_count.sampler_bytes(config, ModelConfig()) == pytest.approx(2 * (float(weights) + caches), rel=1e-5)


def test_it_needs_no_jax():
    code = "import sys, mmsearch_jax.planning.hand_count, mmsearch_jax.planning.sizes; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
