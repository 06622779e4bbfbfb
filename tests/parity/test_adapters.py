"""LoRA adapters against PEFT: each reads the other's files and computes the same."""

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from mmsearch_jax.models.adapters import load_adapter, save_adapter
from mmsearch_jax.models.lora import add_lora, lora_layers, merge_lora
from mmsearch_jax.settings.policy import LoRAConfig
from tests.parity.test_qwen2_5_vl import TEXT, TOLERANCE, VISION, models

IDS = np.random.default_rng(0).integers(11, 300, (1, 20))


@pytest.fixture
def pair(tmp_path):
    ours, theirs, _ = models(TEXT, VISION, tmp_path / "base")
    return ours, theirs


def our_logits(model):
    ids = jnp.asarray(IDS)
    return model.logits(model(ids, jnp.broadcast_to(jnp.arange(20), (3, 1, 20)), jnp.ones((1, 20), jnp.int32)))


def their_logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits.numpy()


def test_peft_loads_our_adapter(pair, tmp_path):
    ours, theirs = pair
    adapted = add_lora(ours, LoRAConfig(4, 10.0))
    for i, layer in enumerate(lora_layers(adapted).values()):
        layer.lora_b[...] = jax.random.normal(jax.random.key(i), layer.lora_b.shape) * 0.1
    save_adapter(adapted, tmp_path / "adapter", "base")
    loaded = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    expected = their_logits(loaded)
    assert np.abs(expected - our_logits(ours)).max() > 0.1
    np.testing.assert_allclose(our_logits(adapted), expected, atol=TOLERANCE)
    np.testing.assert_allclose(our_logits(merge_lora(adapted)), expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {r"layers\.0\.mlp\.up_proj": 7}},
        {"use_rslora": True, "rank_pattern": {r"layers\.1\..*": 2}, "alpha_pattern": {"self_attn.q_proj": 3.5}},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.2},
    ],
)
def test_we_load_peft_s_adapter(pair, tmp_path, fields):
    ours, theirs = pair
    targets = r".*language_model\.layers\.\d+\.(self_attn\.q_proj|mlp\.up_proj)"
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=3, lora_alpha=12, target_modules=targets, **fields))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    wrapped.eval().save_pretrained(str(tmp_path / "adapter"))
    expected = their_logits(wrapped)
    np.testing.assert_allclose(our_logits(load_adapter(ours, tmp_path / "adapter")), expected, atol=TOLERANCE)
