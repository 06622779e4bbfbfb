"""PEFT's adapters: what is computed, what is refused by name, which layouts of names are read (numbers: tests/parity)."""

import json

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models.adapters import load_adapter, save_adapter
from mmsearch_jax.models.lora import lora_layers, merge_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from tests.models.test_qwen2_5_vl import CONFIG

RECORD = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], "bias": "none"}
NEW = "base_model.model.model.language_model.layers.{}.self_attn.{}.lora_{}.weight"


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))


def write(folder, names=NEW, module="q_proj", layers=CONFIG.text.num_hidden_layers, rank=2, **fields):
    rng, width = np.random.default_rng(0), CONFIG.text.hidden_size
    tensors = {}
    for layer in range(layers):
        tensors[names.format(layer, module, "A")] = rng.normal(size=(rank, width)).astype("f4")
        tensors[names.format(layer, module, "B")] = rng.normal(size=(width, rank)).astype("f4")
    save_file(tensors, folder / "adapter_model.safetensors")
    record = {name: value for name, value in {**RECORD, **fields}.items() if value != "absent"}
    (folder / "adapter_config.json").write_text(json.dumps(record))
    return tensors


@pytest.mark.parametrize(
    "names",
    [
        NEW,
        "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight",
        "base_model.model.language_model.model.layers.{}.self_attn.{}.lora_{}.weight",
        "base_model.model.model.language_model.layers.{}.self_attn.{}.lora_{}.default.weight",
        "model.layers.{}.self_attn.{}.lora_{}.weight",
    ],
)
def test_every_layout_of_names_is_read(model, names, tmp_path):
    tensors = write(tmp_path, names)
    (layer,) = lora_layers(load_adapter(model, tmp_path)).values()
    assert layer.scale == 3.0
    np.testing.assert_array_equal(layer.lora_a[...][1], tensors[names.format(1, "q_proj", "A")].T)
    np.testing.assert_array_equal(layer.lora_b[...][1], tensors[names.format(1, "q_proj", "B")].T)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"a_field_of_tomorrow": {"strength": 2}}, "a_field_of_tomorrow"),
        ({"r": "absent"}, "r is missing"),
        ({"r": 0}, "r is 0"),
        ({"r": True}, "r is true"),
        ({"lora_alpha": "16"}, "lora_alpha is"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern"),
        ({"rank_pattern": {"q_proj": 1.5}}, "rank_pattern"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern"),
        ({"use_rslora": "true"}, 'use_rslora is "true"'),
        ({"use_rslora": 1}, "use_rslora is 1"),
        ({"use_qalora": True}, "use_qalora"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"target_parameters": ["weight"]}, "target_parameters"),
        ({"eva_config": {"rho": 2.0}}, "eva_config"),
    ],
)
def test_a_meaning_that_is_not_computed_is_refused_by_name(model, fields, named, tmp_path):
    write(tmp_path, **fields)
    with pytest.raises(CheckpointError, match=named):
        load_adapter(model, tmp_path)


def test_what_peft_writes_by_default_changes_nothing(model, tmp_path):
    off = {"use_dora": False, "modules_to_save": None, "rank_pattern": {}, "loftq_config": {}, "qalora_group_size": 16}
    write(tmp_path, **off, megatron_core="megatron.core", init_lora_weights=True, peft_version="0.21.2")
    assert len(lora_layers(load_adapter(model, tmp_path))) == 1


@pytest.mark.parametrize("content", ["[]", "{", '"LORA"', ""])
def test_a_config_that_is_no_object_is_refused(model, content, tmp_path):
    write(tmp_path)
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="adapter"):
        load_adapter(model, tmp_path)


@pytest.mark.parametrize("change", [{"module": "router"}, {"layers": 1}, {"layers": 3}, {"rank": 4}])
def test_tensors_that_do_not_fit_are_refused(model, change, tmp_path):
    write(tmp_path, **change)
    with pytest.raises(CheckpointError, match="unsupported|does not fit|another base"):
        load_adapter(model, tmp_path)


def test_one_update_under_two_names_is_refused(model, tmp_path):
    tensors = write(tmp_path)
    again = {name.replace("language_model.", ""): tensor for name, tensor in tensors.items()}
    save_file({**tensors, **again}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="twice"):
        load_adapter(model, tmp_path)


def test_an_adapter_with_patterns_comes_back_as_an_equal_one(model, tmp_path):
    write(tmp_path, use_rslora=True, alpha_pattern={r"layers\.1\..*": 2.5})
    first = load_adapter(model, tmp_path)
    save_adapter(first, tmp_path / "again", "base")
    second = load_adapter(model, tmp_path / "again")
    kernels = [np.asarray(merge_lora(each).language.layers.q_proj.kernel[...]) for each in (first, second)]
    np.testing.assert_allclose(*kernels, rtol=1e-6, atol=1e-6)
    assert np.abs(kernels[0] - np.asarray(model.language.layers.q_proj.kernel[...])).min(axis=(1, 2)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * np.float32("nan"), "not finite"),
        (lambda tensor: tensor / np.float32(0), "not finite"),
        (lambda tensor: tensor.astype(np.int8), "whole numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_updates_that_are_no_sound_numbers_are_refused(model, change, message, tmp_path):
    tensors = write(tmp_path)
    name = NEW.format(0, "q_proj", "A")
    save_file(tensors | {name: change(tensors[name])}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_adapter(model, tmp_path)
