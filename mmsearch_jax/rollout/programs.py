"""The three device programs of the engine: extend rows, decode rows, copy a prefix. Pure functions of arrays.

Rows are gathered from the slots' cache, processed, and written back, so the cost of a call depends on its rows and not on the
number of slots. Legend: S slots, N rows of one call, T new tokens, L cache length, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from mmsearch_jax.rollout import sampling

NO_SLOT = 2**30
"""Row index of a padding row: reads are clipped, writes are dropped."""


class DecodeRows(NamedTuple):
    """The inputs of the decode loop for each row.

    Attributes:
      slots: the row's slot (`NO_SLOT` for padding).
      positions: M-RoPE position of the next token (the same in all three dims: it is text).
      budget: tokens that may still be sampled in this turn; 0 for padding.
      states: the tag automaton's state.
      tags: whether a closing tag ends the turn.
      seeds: the trajectories' seeds.
      temperature, top_p, top_k: see `SamplingParams`.
      num_top: how many of the most probable tokens the row wants to know.
    """

    slots: Int32[Any, "N"]
    positions: Int32[Any, "N"]
    budget: Int32[Any, "N"]
    states: Int32[Any, "N"]
    tags: Bool[Any, "N"]
    seeds: UInt32[Any, "N"]
    temperature: Float32[Any, "N"]
    top_p: Float32[Any, "N"]
    top_k: Int32[Any, "N"]
    num_top: Int32[Any, "N"]


def no_rows(count: int) -> DecodeRows:
    """Padding rows only, as writable host arrays."""
    zeros, ones = np.zeros(count, np.int32), np.ones(count, np.float32)
    return DecodeRows(
        slots=np.full(count, NO_SLOT, np.int32),
        positions=zeros.copy(),
        budget=zeros.copy(),
        states=zeros.copy(),
        tags=np.zeros(count, bool),
        seeds=np.zeros(count, np.uint32),
        temperature=ones.copy(),
        top_p=ones.copy(),
        top_k=zeros.copy(),
        num_top=zeros.copy(),
    )


class DecodeConstants(NamedTuple):
    """Constants: the tag automaton's table, the tokens that end a turn or may never be sampled, the run's seed."""

    transitions: Int32[Any, "states V"]
    stop: Bool[Any, "V"]
    banned: Bool[Any, "V"]
    seed: UInt32[Any, ""]


class Decoded(NamedTuple):
    """The result of a decode call.

    Only the first `counts` tokens and log-probs of a row are valid. `running` rows neither stopped nor ran out of budget;
    `states` are the tag automaton's. `top_tokens` and `top_logprobs` are the most probable tokens of each step, best first,
    if any row wants them.
    """

    tokens: Int32[Any, "N steps"]
    logprobs: Float32[Any, "N steps"]
    counts: Int32[Any, "N"]
    running: Bool[Any, "N"]
    states: Int32[Any, "N"]
    top_tokens: Int32[Any, "N steps top"]
    top_logprobs: Float32[Any, "N steps top"]


class _DecodeCarry(NamedTuple):
    """The state of the loop in `decode_rows`.

    Attributes:
      step: int32 scalar, number of steps done.
      cache: of the N rows.
      last: [N, D], the last hidden state of each row.
      running: bool [N], rows whose turn continues.
      states: int32 [N], the tag automaton's state.
      counts: int32 [N], number of tokens sampled in this call.
      tokens, logprobs: int32 and float32 [N, steps].
      top_tokens, top_logprobs: int32 and float32 [N, steps, top].
    """

    step: jax.Array
    cache: Any
    last: jax.Array
    running: jax.Array
    states: jax.Array
    counts: jax.Array
    tokens: jax.Array
    logprobs: jax.Array
    top_tokens: jax.Array
    top_logprobs: jax.Array


def _slot_axis(leaf: jax.Array) -> int:
    # Keys and values are [..., S, L, K, h] (layers may lead), lengths are [S].
    return 0 if leaf.ndim == 1 else leaf.ndim - 4


def take_rows(cache: Any, slots: Int32[Array, "N"], length: int) -> Any:
    """A cache of N rows with the first `length` entries of the given slots."""

    def take(leaf: jax.Array) -> jax.Array:
        axis = _slot_axis(leaf)
        if leaf.ndim > 1:
            leaf = jax.lax.slice_in_dim(leaf, 0, length, axis=axis + 1)
        return jnp.take(leaf, slots, axis=axis, mode="clip")

    return jax.tree.map(take, cache)


def put_rows(cache: Any, rows: Any, slots: Int32[Array, "N"], length: int) -> Any:
    """The inverse of `take_rows`; padding rows are dropped."""

    def put(leaf: jax.Array, row: jax.Array) -> jax.Array:
        axis = _slot_axis(leaf)
        index: list[Any] = [slice(None)] * axis + [slots]
        if leaf.ndim > 1:
            index.append(slice(0, length))
        return leaf.at[tuple(index)].set(row, mode="drop")

    return jax.tree.map(put, cache, rows)


def extend_rows(
    model: Any,
    cache: Any,
    hidden: Float[Array, "S D"],
    slots: Int32[Array, "N"],
    starts: Int32[Array, "N"],
    token_ids: Int32[Array, "N T"],
    positions: Int32[Array, "3 N T"],
    num_new: Int32[Array, "N"],
    features: Float[Array, "F D"] | None,
    feature_index: Int32[Array, "N T"] | None,
    *,
    length: int,
) -> tuple[Any, Float[Array, "S D"]]:
    """Feeds up to T tokens to each of N rows.

    Args:
      cache: of all slots; `hidden`: last hidden state of each slot.
      starts: tokens already valid in the slot's cache (0 empties it).
      features, feature_index: image features and, per token, its feature (-1: text).
      length: cache entries that are read and written.

    Returns:
      The cache and hidden states of all slots.
    """
    rows = _with_lengths(take_rows(cache, slots, length), starts)
    states, rows = model.extend(rows, token_ids, positions, num_new, features, feature_index)
    last = jnp.take_along_axis(states, jnp.maximum(num_new - 1, 0)[:, None, None], axis=1)[:, 0]
    cache = put_rows(cache, rows, slots, length)
    return cache, hidden.at[slots].set(last.astype(hidden.dtype), mode="drop")


def copy_rows(
    cache: Any,
    hidden: Float[Array, "S D"],
    source: Int32[Array, ""],
    last: Float[Array, "D"],
    slots: Int32[Array, "N"],
    *,
    length: int,
) -> tuple[Any, Float[Array, "S D"]]:
    """Copies the first `length` entries of slot `source` to the slots, with `last` as their hidden state.

    Entries after the shared prefix are copied too; they lie beyond each slot's length and are never read.
    """
    rows = take_rows(cache, jnp.broadcast_to(source, slots.shape), length)
    cache = put_rows(cache, rows, slots, length)
    return cache, hidden.at[slots].set(jnp.broadcast_to(last, (slots.shape[0], last.shape[0])), mode="drop")


def decode_rows(
    model: Any,
    cache: Any,
    hidden: Float[Array, "S D"],
    rows: DecodeRows,
    lengths: Int32[Array, "N"],
    constants: DecodeConstants,
    *,
    length: int,
    steps: int,
    gather: bool,
    num_top: int = 0,
) -> tuple[Any, Float[Array, "S D"], Decoded]:
    """Samples up to `steps` tokens for each row, and stops a row at a closing tag, a stop token or its budget.

    Each step samples from the hidden state, then feeds the token unless it ended the turn. The last token of a turn is
    therefore not in the cache, and the host may drop it.

    Args:
      lengths: tokens in the cache of each row.
      gather: false when the rows are all slots in order; then the cache is used in place.
      num_top: the most that a row's `num_top` may be. The vocabulary is searched only while a row wants one; 0: never.
    """
    num_rows = rows.slots.shape[0]
    accept = constants.transitions.shape[0] - 1
    work = take_rows(cache, rows.slots, length) if gather else cache
    work = _with_lengths(work, lengths)
    last = jnp.take(hidden, rows.slots, axis=0, mode="clip") if gather else hidden

    def most_probable(logits: jax.Array, *unknown: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not num_top:
            return unknown[0], unknown[1]
        return jax.lax.cond(
            jnp.any(rows.num_top > 0),
            lambda: sampling.most_probable(logits, rows.temperature, num_top),
            lambda: (unknown[0], unknown[1]),
        )

    def unfinished(carry: _DecodeCarry) -> jax.Array:
        return (carry.step < steps) & jnp.any(carry.running)

    def step(carry: _DecodeCarry) -> _DecodeCarry:
        i, counts = carry.step, carry.counts
        keys = sampling.position_keys(constants.seed, rows.seeds, lengths + counts)
        logits = model.logits(carry.last)
        token, logprob = sampling.sample(logits, keys, rows.temperature, rows.top_p, rows.top_k, constants.banned)
        tops, top_logprobs = most_probable(logits, carry.top_tokens[:, 0], carry.top_logprobs[:, 0])
        states = jnp.where(carry.running, constants.transitions[carry.states, token], carry.states)
        ended = (rows.tags & (states == accept)) | constants.stop[token]
        place = rows.positions + counts
        counts = counts + carry.running
        running = carry.running & ~ended & (counts < rows.budget)
        fed, cache = model.extend(
            carry.cache,
            token[:, None],
            jnp.broadcast_to(place[None, :, None], (3, num_rows, 1)),
            running.astype(jnp.int32),
        )
        return _DecodeCarry(
            step=i + 1,
            cache=cache,
            last=jnp.where(running[:, None], fed[:, 0].astype(carry.last.dtype), carry.last),
            running=running,
            states=states,
            counts=counts,
            tokens=carry.tokens.at[:, i].set(token),
            logprobs=carry.logprobs.at[:, i].set(logprob),
            top_tokens=carry.top_tokens.at[:, i].set(tops),
            top_logprobs=carry.top_logprobs.at[:, i].set(top_logprobs),
        )

    start = _DecodeCarry(
        step=jnp.int32(0),
        cache=work,
        last=last,
        running=rows.budget > 0,
        states=rows.states,
        counts=jnp.zeros(num_rows, jnp.int32),
        tokens=jnp.zeros((num_rows, steps), jnp.int32),
        logprobs=jnp.zeros((num_rows, steps), jnp.float32),
        top_tokens=jnp.zeros((num_rows, steps, num_top), jnp.int32),
        top_logprobs=jnp.zeros((num_rows, steps, num_top), jnp.float32),
    )
    end = jax.lax.while_loop(unfinished, step, start)
    if gather:
        cache = put_rows(cache, end.cache, rows.slots, length)
        hidden = hidden.at[rows.slots].set(end.last, mode="drop")
    else:
        cache, hidden = end.cache, end.last
    tops = end.top_tokens, end.top_logprobs
    return cache, hidden, Decoded(end.tokens, end.logprobs, end.counts, end.running, end.states, *tops)


def _with_lengths(cache: Any, lengths: Int32[Array, "N"]) -> Any:
    """The same cache with other lengths: the host knows how many entries are valid, and never reads it from the device."""
    return dataclasses.replace(cache, lengths=lengths)
