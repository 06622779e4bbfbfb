"""A policy is loaded onto the chips that need it, and saved when a stage ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from mmsearch_jax.jobs.policies import in_host_memory
from mmsearch_jax.models import hf
from mmsearch_jax.models.lora import add_lora, lora_layers, merge_lora
from mmsearch_jax.recipes.tiny import TINY_BASE
from mmsearch_jax.settings.policy import LoRAConfig
from tests.rollout.test_placement import finished, run


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_policy_in_host_memory_is_saved_as_one_on_the_device_is(dtype, tmp_path):
    model, _ = hf.load_pretrained(TINY_BASE, param_dtype=dtype)
    model = add_lora(model, LoRAConfig(rank=2))
    for layer in lora_layers(model).values():
        layer.lora_b.set_value(jnp.ones(layer.lora_b.shape))
    held = in_host_memory(model)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(nnx.state(held)))
    saved = []
    for name, each in (("device", model), ("host", held)):
        hf.save_pretrained(merge_lora(each), tmp_path / name)
        saved.append(load_file(tmp_path / name / "model.safetensors"))
    device, host = saved
    assert device.keys() == host.keys()
    rtol = 1e-6 if dtype == jnp.float32 else 1e-2
    for name in device:
        np.testing.assert_allclose(
            host[name].astype(np.float32), device[name].astype(np.float32), rtol=rtol, err_msg=name
        )


_ON_TWO_CHIPS = """
import jax
from flax import nnx
from mmsearch_jax.core.config_files import load
from mmsearch_jax.jobs.policies import named_policy
from mmsearch_jax.settings.commands import EvaluationSettings

loaded = load(EvaluationSettings, "configs/eval/deepmmsearch.py", ["--config.engine.tensor=2"])
policy = named_policy(loaded.settings)
whole = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(policy.model)))
on_one = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(nnx.state(policy.model)))
print(on_one / whole)
"""


def test_a_policy_that_is_sampled_from_is_read_onto_the_chips_of_its_engine():
    assert float(finished(run(_ON_TWO_CHIPS, 2)).splitlines()[-1]) < 0.6
