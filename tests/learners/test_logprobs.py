"""Log-probs in chunks: the values and gradients of the plain form, in a fraction of its memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.data.batches import TokenBatch, pack
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.supervised import weighted_loss
from mmsearch_jax.learners.train_state import split_model, trains_head
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.policy import LoRAConfig
from tests.learners.small_sequences import SHAPE, sequence
from tests.models.test_qwen2_5_vl import CONFIG, forward, image


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))


# One program instead of one an operation.
scores = nnx.jit(token_logprobs, static_argnames=("temperature", "chunk"))


def test_packing_and_chunking_change_no_logprob(model):
    sequences = [sequence(0, 14, image(0, 4, 6)), sequence(1, 9), sequence(2, 17, image(1, 2, 4))]
    packed, left = pack(sequences, SHAPE)
    assert not left
    together = scores(model, packed.batch, chunk=16).logprobs
    for i, row, start in packed.places:
        alone, _ = pack([sequences[i]], BatchShape(1, len(sequences[i]), 1, 24))
        expected = scores(model, alone.batch).logprobs[0]
        np.testing.assert_allclose(together[row, start : start + len(sequences[i])], expected, atol=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logprobs_and_entropy_equal_the_plain_form_in_float64(model, temperature):
    packed, _ = pack([sequence(3, 20)], BatchShape(1, 20))
    batch = packed.batch
    scored = scores(model, batch, temperature=temperature)
    hidden = forward(model, jnp.asarray(batch.token_ids), jnp.asarray(batch.positions), jnp.asarray(batch.segment_ids))
    logits = np.asarray(model.logits(hidden), np.float64)[0] / temperature
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(scored.logprobs[0, 1:], logp[np.arange(19), batch.token_ids[0, 1:]], atol=1e-5)
    np.testing.assert_allclose(scored.entropy[0, 1:], -(np.exp(logp) * logp).sum(-1)[:19], atol=1e-5)
    assert scored.logprobs[0, 0] == 0


class LinearPolicy:
    """A policy with given hidden states, so that its gradients have a closed form."""

    def __init__(self, hidden, head):
        self.hidden, self.head = hidden, head

    def __call__(self, *_):
        return self.hidden

    def logits(self, hidden):
        return hidden @ self.head


@pytest.mark.parametrize("chunk", [4, 7, 64], ids=["many chunks", "a padded last chunk", "one chunk, mostly padding"])
def test_gradients_equal_the_formula_in_float64(chunk):
    """Two segments and padding. With p = softmax(z): d log p_y / dz = onehot(y) - p, dH / dz = -p (log p + H)."""
    rng = np.random.default_rng(0)
    rows, length, width, vocabulary, temperature = 2, 10, 6, 50, 0.7
    hidden, head = rng.normal(size=(rows, length, width)), rng.normal(size=(width, vocabulary))
    tokens = rng.integers(0, vocabulary, (rows, length))
    segments = np.array([[1] * 4 + [2] * 6, [1] * 7 + [0] * 3])
    on_logprob, on_entropy = rng.normal(size=(2, rows, length))
    batch = TokenBatch(tokens, np.zeros((3, rows, length), np.int32), segments, None, None, None, {})

    def objective(hidden, head):
        scored = token_logprobs(LinearPolicy(hidden, head), batch, temperature, chunk)
        return jnp.sum(scored.logprobs * on_logprob) + jnp.sum(scored.entropy * on_entropy)

    got = jax.grad(objective, (0, 1))(jnp.asarray(hidden, jnp.float32), jnp.asarray(head, jnp.float32))

    to_hidden, to_head = np.zeros_like(hidden), np.zeros_like(head)
    for row in range(rows):
        for t in range(1, length):
            if segments[row, t] == 0 or segments[row, t] != segments[row, t - 1]:
                continue
            z = hidden[row, t - 1] @ head / temperature
            logp = z - np.log(np.exp(z).sum())
            p = np.exp(logp)
            entropy = -(p * logp).sum()
            to_z = on_logprob[row, t] * (np.eye(vocabulary)[tokens[row, t]] - p)
            to_z -= on_entropy[row, t] * p * (logp + entropy)
            to_hidden[row, t - 1] += head @ to_z / temperature
            to_head += np.outer(hidden[row, t - 1], to_z) / temperature
    np.testing.assert_allclose(got[0], to_hidden, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(got[1], to_head, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("chunk", [4, 64])
def test_with_a_frozen_head_the_gradient_to_hidden_states_is_the_same(chunk):
    """As above, without gradients to the head or through the entropy."""
    rng = np.random.default_rng(1)
    hidden = jnp.asarray(rng.normal(size=(2, 10, 6)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(6, 50)), jnp.float32)
    on_logprob = rng.normal(size=(2, 10))
    segments = np.array([[1] * 4 + [2] * 6, [1] * 7 + [0] * 3])
    tokens = rng.integers(0, 50, (2, 10))
    batch = TokenBatch(tokens, np.zeros((3, 2, 10), np.int32), segments, None, None, None, {})

    def objective(hidden, head, trained):
        found = token_logprobs(LinearPolicy(hidden, head), batch, 0.7, chunk, head_is_trained=trained)
        return jnp.sum(found.logprobs * on_logprob) + (0.0 if trained else jnp.sum(found.entropy)), found

    (_, usual), (to_hidden, to_head) = jax.value_and_grad(objective, (0, 1), has_aux=True)(hidden, head, True)
    (_, frozen), (also_to_hidden, nothing) = jax.value_and_grad(objective, (0, 1), has_aux=True)(hidden, head, False)
    np.testing.assert_array_equal(frozen.logprobs, usual.logprobs)
    np.testing.assert_array_equal(frozen.entropy, usual.entropy)
    assert float(jnp.abs(to_hidden).max()) > 0.1 and float(jnp.abs(to_head).max()) > 0.1
    np.testing.assert_allclose(also_to_hidden, to_hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(nothing, 0.0)


def test_updates_of_low_rank_learn_the_same_with_the_quicker_head(model):
    with_lora = add_lora(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), LoRAConfig(4, 8.0))
    graph, params, frozen = split_model(with_lora)
    assert not trains_head(params) and trains_head(split_model(model)[1])
    # LoRA's second factor starts at 0, which would make the first factor's gradient 0.
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.sin(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), params
    )
    batch = pack([sequence(seed, 20) for seed in range(2)], BatchShape(2, 20))[0].batch

    def gradient(trained):
        def loss(params):
            return weighted_loss(nnx.merge(graph, frozen, params), batch, head_is_trained=trained)[0]

        return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

    for a, b in zip(gradient(True), gradient(False), strict=True):
        assert float(jnp.abs(a).max()) > 1e-4
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def plain_logprobs(model, batch):
    """Computes all logits at once, for a batch with one segment per row."""
    hidden = model(jnp.asarray(batch.token_ids), jnp.asarray(batch.positions), jnp.asarray(batch.segment_ids))
    logp = jax.nn.log_softmax(model.logits(hidden)[:, :-1], axis=-1)
    return jnp.take_along_axis(logp, jnp.asarray(batch.token_ids)[:, 1:, None], axis=-1)[..., 0]


def gradient_of(scores, model):
    """A jitted gradient of the summed scores with respect to all parameters, and the parameters."""
    graph, params = nnx.split(model)
    return jax.jit(jax.grad(lambda params: jnp.sum(scores(nnx.merge(graph, params))))), params


def test_the_whole_policy_s_gradients_equal_those_of_the_plain_form(model):
    batch = pack([sequence(seed, 20) for seed in range(2)], BatchShape(2, 20))[0].batch
    chunked, params = gradient_of(lambda policy: token_logprobs(policy, batch, chunk=16).logprobs, model)
    plain, _ = gradient_of(lambda policy: plain_logprobs(policy, batch), model)
    found, expected = jax.tree.leaves(chunked(params)), jax.tree.leaves(plain(params))
    assert max(float(jnp.abs(leaf).max()) for leaf in expected) > 1
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_gradients_take_a_small_fraction_of_the_plain_form_s_memory():
    """With 1024 tokens and a vocabulary of 32768, the logits take 128 MiB; a chunk's take a sixteenth."""
    text = dataclasses.replace(CONFIG.text, vocab_size=32768, num_hidden_layers=1)
    model = Qwen2_5_VL(dataclasses.replace(CONFIG, text=text), rngs=nnx.Rngs(0))
    batch = pack([sequence(seed, 128) for seed in range(8)], BatchShape(8, 128))[0].batch

    def temporary_bytes(scores):
        gradient, params = gradient_of(scores, model)
        analysis = gradient.lower(params).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    chunked = temporary_bytes(lambda policy: token_logprobs(policy, batch, chunk=64).logprobs)
    plain = temporary_bytes(lambda policy: plain_logprobs(policy, batch))
    print(f"\ntemporary memory: chunked {chunked / 2**20:.0f} MiB, plain {plain / 2**20:.0f} MiB")
    assert plain > 2 * 128 * 2**20
    assert chunked < plain / 10
