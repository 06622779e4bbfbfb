"""Sampling follows the stated distribution; the automaton finds closing tags across token boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.rollout import sampling

RENDERER = ChatRenderer(tiny_tokenizer.build())
AUTOMATON = sampling.TagAutomaton(RENDERER.token_bytes, CLOSING_TAGS, RENDERER.vocabulary_size + 5)
ROWS = 4000
LOGITS = jnp.array([2.0, 1.0, 0.5, 0.0, -1.0, 3.0])


def draw(temperature=1.0, top_p=1.0, top_k=0, banned=()):
    mask = np.zeros(LOGITS.shape[0], bool)
    mask[list(banned)] = True
    keys = sampling.position_keys(jnp.uint32(0), jnp.arange(ROWS, dtype=jnp.uint32), jnp.zeros(ROWS, jnp.int32))
    rows = jnp.full(ROWS, 1.0)
    tokens, logprobs = jax.jit(sampling.sample)(
        jnp.broadcast_to(LOGITS, (ROWS, LOGITS.shape[0])),
        keys,
        rows * temperature,
        rows * top_p,
        jnp.full(ROWS, top_k),
        jnp.asarray(mask),
    )
    return np.asarray(tokens), np.asarray(logprobs)


@pytest.mark.parametrize(
    ("settings_", "kept"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"temperature": 2.0}, [0, 1, 2, 3, 4, 5]),
        ({"top_k": 2}, [0, 5]),
        ({"top_p": 0.75}, [0, 5]),
        ({"top_p": 0.01}, [5]),
        ({"top_k": 3, "top_p": 0.99, "temperature": 0.7}, [0, 1, 5]),
        ({"banned": [5]}, [0, 1, 2, 3, 4]),
    ],
)
def test_frequencies_are_those_of_the_filtered_distribution_and_log_probs_of_the_whole(settings_, kept):
    tokens, logprobs = draw(**settings_)
    logits = np.asarray(LOGITS, np.float64)
    weights = np.zeros(6)
    weights[kept] = np.exp(logits[kept] / settings_.get("temperature", 1.0))
    expected = weights / weights.sum()
    np.testing.assert_allclose(np.bincount(tokens, minlength=6) / ROWS, expected, atol=0.03)
    scaled = logits / settings_.get("temperature", 1.0)
    np.testing.assert_allclose(logprobs, (scaled - np.log(np.exp(scaled).sum()))[tokens], atol=1e-5)


def test_temperature_zero_takes_the_best_token_that_is_allowed():
    tokens, logprobs = draw(temperature=0.0, banned=[5])
    assert set(tokens.tolist()) == {0} and (logprobs < 0).all()


def test_keys_depend_on_seed_trajectory_and_position():
    def data(seed, trajectory, position):
        keys = sampling.position_keys(jnp.uint32(seed), jnp.array([trajectory], jnp.uint32), jnp.array([position]))
        return tuple(np.asarray(jax.random.key_data(keys)).ravel().tolist())

    assert data(0, 1, 2) == data(0, 1, 2)
    assert len({data(0, 1, 2), data(1, 1, 2), data(0, 2, 2), data(0, 1, 3), data(0, 2, 1)}) == 5


def test_impossible_settings_are_refused():
    for bad in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}):
        with pytest.raises(ValueError, match="need temperature"):
            sampling.SamplingParams(**bad)  # type: ignore[arg-type]


PIECES = ["<", "/", ">", "</", "answer", "text_search", "img_search", "</answer>", "</text_", "search>", "x", "é"]
TOKENS = st.lists(st.integers(0, RENDERER.vocabulary_size - 1 - len(tiny_tokenizer.CONTROLS)), max_size=30)


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES)).map("".join), TOKENS)
def test_the_automaton_accepts_exactly_where_the_first_closing_tag_is_complete(text, more):
    ids = [*RENDERER.encode(text), *more]
    state, written = 0, b""
    for token in ids:
        state = AUTOMATON.table[state, token]
        written += RENDERER.token_bytes[token]
        assert (state == AUTOMATON.accept) == (AUTOMATON.find(written) is not None)


def test_a_control_token_breaks_a_tag_off():
    state = 0
    for token in [*RENDERER.encode("</ans"), RENDERER.im_end, *RENDERER.encode("wer>")]:
        state = AUTOMATON.table[state, token]
    assert state != AUTOMATON.accept


def test_the_most_probable_tokens_are_those_of_a_sort():
    logits = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32) * 3
    temperature = np.asarray([0.0, 0.5, 1.0, 2.0], np.float32)
    tokens, logprobs = sampling.most_probable(jnp.asarray(logits), jnp.asarray(temperature), 7)
    scaled = logits.astype(np.float64) / np.where(temperature <= 0, 1, temperature)[:, None]
    expected = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    order = np.argsort(-expected, axis=-1)[:, :7]
    np.testing.assert_array_equal(tokens, order)
    np.testing.assert_allclose(logprobs, np.take_along_axis(expected, order, -1), atol=1e-5)
