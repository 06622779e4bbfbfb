"""What is saved when a stage ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from configs.tiny import TINY_BASE
from flax import nnx
from safetensors.numpy import load_file

from mmsearch_jax.jobs.training import in_host_memory
from mmsearch_jax.models import hf
from mmsearch_jax.models.lora import add_lora, lora_layers, merge_lora
from mmsearch_jax.settings.policy import LoRAConfig


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
