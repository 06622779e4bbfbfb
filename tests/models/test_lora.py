"""LoRA: it starts equal to the base, can be merged, and is the only part that is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.learners import supervised
from mmsearch_jax.learners.train_state import create_train_state, make_optimizer, split_model
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.models.adapters import load_adapter, save_adapter
from mmsearch_jax.models.lora import DropoutKey, LoRALinear, add_lora, lora_layers, merge_lora, with_dropout
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import OptimizerConfig
from mmsearch_jax.settings.policy import LoRAConfig
from tests.models.test_qwen2_5_vl import CONFIG


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))


@nnx.jit
def hidden(model):
    ids = jnp.asarray(np.random.default_rng(0).integers(7, 64, (2, 12)))
    return model(ids, jnp.broadcast_to(jnp.arange(12), (3, 2, 12)), jnp.ones((2, 12), jnp.int32))


def trained(model, config):
    """A model with LoRA whose updates are no longer zero."""
    adapted = add_lora(model, config)
    for i, layer in enumerate(lora_layers(adapted).values()):
        layer.lora_b[...] = jax.random.normal(jax.random.key(i), layer.lora_b.shape) * 0.1
    return adapted


def test_it_starts_as_the_base(model):
    np.testing.assert_array_equal(hidden(add_lora(model, LoRAConfig(4))), hidden(model))


@pytest.mark.parametrize("targets", [LoRAConfig().targets, ("q_proj", "down_proj")])
def test_merging_changes_the_form_not_the_result(model, targets):
    adapted = trained(model, LoRAConfig(4, 8.0, targets))
    assert tuple(lora_layers(adapted)) == targets
    assert float(jnp.abs(hidden(adapted) - hidden(model)).max()) > 0.1
    merged = merge_lora(adapted)
    assert not lora_layers(merged)
    np.testing.assert_allclose(hidden(merged), hidden(adapted), atol=2e-5)


def test_the_update_is_scaled_by_alpha_over_rank(model):
    layer = lora_layers(trained(model, LoRAConfig(4, 6.0, ("q_proj",))))["q_proj"]
    expected = np.asarray(layer.kernel[...]) + 1.5 * np.asarray(layer.lora_a[...]) @ np.asarray(layer.lora_b[...])
    np.testing.assert_allclose(layer.merged(), expected, rtol=1e-6, atol=1e-7)


def test_only_the_updates_are_trained_and_take_optimiser_memory(model):
    adapted = add_lora(model, LoRAConfig(4))
    _, updates, kept = split_model(adapted, ("vision",))
    assert all(path[-1] in ("lora_a", "lora_b") for path, _ in nnx.to_flat_state(updates))
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == sum(
        leaf.size for leaf in jax.tree.leaves(nnx.split(model)[1])
    )
    state = create_train_state(updates, kept, make_optimizer(OptimizerConfig(), 1))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(updates))
    # Adam's two moments, and a few counters.
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state)) < 2 * size + 64


def test_an_adapter_comes_back_as_it_was_written(model, tmp_path):
    adapted = trained(model, LoRAConfig(4, 8.0, ("k_proj", "up_proj"), dropout=0.1))
    save_adapter(adapted, tmp_path, "base")
    loaded = load_adapter(model, tmp_path)
    np.testing.assert_array_equal(hidden(loaded), hidden(adapted))
    assert {layer.dropout for layer in lora_layers(loaded).values()} == {0.1}


def test_an_adapter_of_another_model_is_refused(model, tmp_path):
    from safetensors.numpy import load_file, save_file

    with pytest.raises(CheckpointError, match=r"adapter_config\.json cannot be read \(No such file.*: give a folder that PEFT"):
        load_adapter(model, tmp_path)
    save_adapter(trained(model, LoRAConfig(4)), tmp_path, "base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = next(name for name in tensors if "layers.1" in name and "lora_A" in name)
    save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the model: was it trained on another"):
        load_adapter(model, tmp_path)
    save_file(tensors | {"other.lora_A.weight": np.zeros(3)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="updates modules other than"):
        load_adapter(model, tmp_path)


def test_dropout_leaves_inputs_of_the_update_out_and_scales_the_others():
    base = nnx.Linear(64, 64, use_bias=False, rngs=nnx.Rngs(0))
    layer = LoRALinear(base, LoRAConfig(64, 128.0, dropout=0.25), jax.random.key(1))
    # The update is then its input times alpha / rank = 2.
    layer.lora_a[...] = layer.lora_b[...] = jnp.eye(64)
    x = jax.random.normal(jax.random.key(2), (500, 64))
    layer.dropout_key = DropoutKey(jax.random.key_data(jax.random.key(3)))
    update = np.asarray(layer(x) - base(x))
    left_out = np.abs(update) < 1e-6
    assert abs(left_out.mean() - 0.25) < 0.02
    np.testing.assert_allclose(update, np.where(left_out, 0, 2 * x / 0.75), rtol=1e-3, atol=1e-4)


def test_dropout_differs_by_step_and_layer_and_never_outlives_the_step(model):
    adapted = trained(model, LoRAConfig(4, dropout=0.5))
    plain = hidden(trained(model, LoRAConfig(4)))
    np.testing.assert_array_equal(hidden(adapted), plain)
    first, again, second = (hidden(with_dropout(adapted, jax.random.key(i))) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - second).max()) > 1e-3 < float(jnp.abs(first - plain).max())
    keys = lora_layers(with_dropout(adapted, jax.random.key(0)))["q_proj"].dropout_key
    assert keys is not None and len(np.unique(keys[...], axis=0)) == CONFIG.text.num_hidden_layers
    np.testing.assert_array_equal(hidden(adapted), plain)


def test_a_resumed_run_with_dropout_ends_with_the_same_weights(model, tmp_path):
    from tests.learners.test_training import SGD, batches

    adapted = add_lora(model, LoRAConfig(4, dropout=0.3))

    def run(steps, folder, seed=5):
        learnt = supervised.train(
            adapted, batches, supervised.Updates(steps, SGD), RunPlace(folder, "sft", show_progress=False), seed=seed
        )
        return lora_layers(learnt)["q_proj"].lora_b[...]

    whole = run(3, tmp_path / "a")
    run(2, tmp_path / "b")
    np.testing.assert_array_equal(run(3, tmp_path / "b"), whole)
    assert float(jnp.abs(run(3, tmp_path / "c", seed=6) - whole).max()) > 0


def test_training_moves_the_updates_alone(model, tmp_path):
    from tests.learners.test_training import SGD, batches

    adapted = add_lora(model, LoRAConfig(4))
    learnt = supervised.train(
        adapted, batches, supervised.Updates(2, SGD), RunPlace(tmp_path, "sft", show_progress=False)
    )
    for name, layer in lora_layers(learnt).items():
        np.testing.assert_array_equal(layer.kernel[...], lora_layers(adapted)[name].kernel[...])
        assert float(jnp.abs(layer.lora_b[...]).max()) > 0
    loss = nnx.jit(lambda model: supervised.weighted_loss(model, next(batches(0)).batch)[0])
    losses = [loss(m) for m in (model, merge_lora(learnt))]
    assert losses[1] < losses[0]
