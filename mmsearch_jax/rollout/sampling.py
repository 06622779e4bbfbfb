"""From logits to tokens, and from tokens to the end of a turn: pure functions of arrays.

Sampling has a temperature, top-k and top-p per row (arrays, so that a change never recompiles). The tag automaton detects on
the device the token that completes a closing tag. Legend: S slots (rows), V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt32


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How to sample. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch those filters off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(f"need temperature >= 0, 0 < top_p <= 1 and top_k >= 0, got {self}")


def position_keys(
    seed: UInt32[Array, ""], trajectory_seeds: UInt32[Array, "S"], positions: Int32[Array, "S"]
) -> Key[Array, "S"]:
    """One key per row, a function of only run seed, trajectory seed and token index.

    So what a trajectory samples does not depend on its slot, on its neighbours or on when it was scheduled.

    Args:
      positions: index of the token to sample within its trajectory.
    """

    def one(trajectory_seed: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), trajectory_seed)
        return jax.random.fold_in(key, position)

    return jax.vmap(one)(trajectory_seeds, positions)


def sample(
    logits: Float32[Array, "S V"],
    keys: Key[Array, "S"],
    temperature: Float32[Array, "S"],
    top_p: Float32[Array, "S"],
    top_k: Int32[Array, "S"],
    banned: Bool[Array, "V"],
) -> tuple[Int32[Array, "S"], Float32[Array, "S"]]:
    """Samples one token per row.

    Args:
      banned: tokens that may never be sampled (image placeholders, ids without a token).

    Returns:
      tokens int32 [S]; their log-probs float32 [S] under softmax(logits / temperature) over the whole vocabulary, which the
      learner can recompute (temperature 1 if greedy).
    """
    greedy = temperature <= 0.0
    divisor = jnp.where(greedy, 1.0, temperature)[:, None]

    # Each branch applies the mask itself: an operand of the branches would be written to memory first.
    def best() -> jax.Array:
        return _argmax(jnp.where(banned[None, :], -jnp.inf, logits))

    def drawn() -> jax.Array:
        allowed = jnp.where(banned[None, :], -jnp.inf, logits / divisor)
        # Sorting the vocabulary is the most expensive part; it is skipped while no row filters.
        filters = jnp.any((top_p < 1.0) | (top_k > 0))
        filtered = jax.lax.cond(filters, lambda: _filter(allowed, top_p, top_k), lambda: allowed)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:], jnp.float32))(keys)
        return _argmax(jnp.where(greedy[:, None], allowed, filtered + noise))

    # Random numbers for the whole vocabulary are expensive too; they are skipped while all rows are greedy.
    tokens = jax.lax.cond(jnp.all(greedy), best, drawn)
    return tokens, _log_prob(logits / divisor, tokens)


def most_probable(
    logits: Float32[Array, "S V"], temperature: Float32[Array, "S"], count: int
) -> tuple[Int32[Array, "S count"], Float32[Array, "S count"]]:
    """The most probable tokens of each row, best first, with their log-probs as `sample` gives them."""
    scaled = logits / jnp.where(temperature <= 0.0, 1.0, temperature)[:, None]
    best, tokens = jax.lax.top_k(scaled, count)
    return tokens, best - jax.nn.logsumexp(scaled, axis=-1, keepdims=True)


def _log_prob(logits: Float32[Array, "S V"], tokens: Int32[Array, "S"]) -> Float32[Array, "S"]:
    picked = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def _argmax(scores: Float32[Array, "S V"]) -> Int32[Array, "S"]:
    """Index of the largest value of each row, the first if several are equal.

    Written as two reductions: XLA's own argmax takes several times as long on a CPU.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    best = jnp.max(scores, axis=-1, keepdims=True)
    return jnp.min(jnp.where(scores == best, places, scores.shape[-1] - 1), axis=-1)


def _filter(
    scaled: Float32[Array, "S V"], top_p: Float32[Array, "S"], top_k: Int32[Array, "S"]
) -> Float32[Array, "S V"]:
    """-inf outside the top k and outside the smallest set with at least probability p (which contains the best token)."""
    descending = -jnp.sort(-scaled, axis=-1)
    num_tokens = scaled.shape[-1]
    ranks = jnp.arange(num_tokens, dtype=jnp.int32)[None, :]
    in_top_k = ranks < jnp.where(top_k > 0, top_k, num_tokens)[:, None]
    probabilities = jax.nn.softmax(jnp.where(in_top_k, descending, -jnp.inf), axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = in_top_k & ((before < top_p[:, None]) | (ranks == 0))
    threshold = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scaled >= threshold, scaled, -jnp.inf)


class TagAutomaton:
    """Finds, token by token, where the first closing tag is complete, even if it ends inside a token.

    An Aho-Corasick automaton over the tags' bytes, tabulated over tokens: `table[state, token]` is the state
    after the token. A turn starts in state 0; `accept` is reached with the tag's last byte and never left.

    Args:
      token_bytes: bytes of each token id (`ChatRenderer.token_bytes`).
      tags: the tags that end a turn.
      vocabulary_size: of the model; ids that are not in the tokenizer lead to state 0.
    """

    def __init__(self, token_bytes: Sequence[bytes], tags: Sequence[str], vocabulary_size: int):
        self.tags = [tag.encode() for tag in tags]
        prefixes = sorted({tag[:i] for tag in self.tags for i in range(len(tag))}, key=lambda p: (len(p), p))
        self.accept = len(prefixes)
        """Index of the accepting state."""
        state_of = {prefix: i for i, prefix in enumerate(prefixes)}
        step = np.zeros((self.accept + 1, 256), np.int32)
        step[self.accept] = self.accept
        for prefix, state in state_of.items():
            for byte in range(256):
                text = prefix + bytes([byte])
                if any(text.endswith(tag) for tag in self.tags):
                    step[state, byte] = self.accept
                else:
                    step[state, byte] = next(state_of[text[i:]] for i in range(len(text) + 1) if text[i:] in state_of)
        self.table = np.zeros((self.accept + 1, vocabulary_size), np.int32)
        """int32 [states, V]."""
        lengths = np.zeros(vocabulary_size, np.int32)
        lengths[: len(token_bytes)] = [len(text) for text in token_bytes]
        states = np.repeat(np.arange(self.accept + 1, dtype=np.int32)[:, None], vocabulary_size, axis=1)
        for place in range(int(lengths.max(initial=0))):
            live = np.flatnonzero(lengths > place)
            column = np.array([token_bytes[i][place] for i in live.tolist()], np.int32)
            states[:, live] = step[states[:, live], column[None, :]]
        # Control tokens have no bytes; they interrupt a tag.
        self.table[:] = np.where(lengths[None, :] > 0, states, 0)
        self.table[self.accept] = self.accept

    def find(self, text: bytes) -> int | None:
        """Index just after the first complete closing tag in `text`; None if there is none."""
        ends = [text.find(tag) + len(tag) for tag in self.tags if tag in text]
        return min(ends, default=None)
