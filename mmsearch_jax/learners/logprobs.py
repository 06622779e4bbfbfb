"""Log-probabilities of a packed batch's tokens under the policy, without materialising the logits of the whole batch.

The vocabulary projection runs over chunks of tokens and is recomputed in the backward pass, so memory does not grow
with length x vocabulary. SFT, policy and reference share it. Legend: B rows, L tokens, D width.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.distributed.mesh import BATCH_AXES


class TokenLogprobs(NamedTuple):
    """float32 [B, L] each: `logprobs` of token t given the earlier tokens of its segment (0 at a segment's first token and in
    padding), and `entropy` in nats of the distribution that the token was drawn from."""

    logprobs: Float32[Array, "B L"]
    entropy: Float32[Array, "B L"]


def token_logprobs(
    model: Any, batch: TokenBatch, temperature: float = 1.0, chunk: int = 1024, *, head_is_trained: bool = True
) -> TokenLogprobs:
    """Scores every token of the batch.

    Args:
      temperature: divides the logits, as in the sampler, so that the scores are those of the sampled distribution.
      chunk: number of tokens whose logits exist at one time on a device.
      head_is_trained: False (LoRA) gives no gradient to the vocabulary projection or through the entropy. The gradient of the
        hidden states is then computed with the scores, and the backward pass does not recompute the logits.
    """
    features = model.encode_images(batch.vision) if batch.vision is not None else None
    index = jnp.asarray(batch.feature_index) if features is not None else None
    segments = jnp.asarray(batch.segment_ids)
    token_ids = jnp.asarray(batch.token_ids)
    hidden = model(token_ids, jnp.asarray(batch.positions), segments, features, index)
    targets = jnp.concatenate([token_ids[:, 1:], jnp.zeros_like(token_ids[:, :1])], axis=1)
    scored, entropy = _chunked_scores(model, hidden, targets, temperature, chunk, head_is_trained)
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] != 0)

    def shifted(values: jax.Array) -> jax.Array:
        return jnp.pad(jnp.where(follows, values[:, :-1], 0.0), ((0, 0), (1, 0)))

    return TokenLogprobs(shifted(scored), shifted(entropy))


def _chunked_scores(
    model: Any,
    hidden: Float[Array, "B L D"],
    targets: Int[Array, "B L"],
    temperature: float,
    chunk: int,
    head_is_trained: bool,
) -> tuple[Float32[Array, "B L"], Float32[Array, "B L"]]:
    """Log-probs and entropies [B, L] of targets [B, L] predicted from hidden states [B, L, D].

    Rows and lengths stay split over the mesh: every device iterates over chunks of its own tokens.
    """
    batch, length, _ = hidden.shape
    mesh = jax.sharding.get_abstract_mesh()
    row_shards, parts = 1, 1
    if not mesh.empty:
        row_shards, parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES), mesh.shape["sequence"]
    own_rows, own_length = -(-batch // row_shards), -(-length // parts)
    steps = -(-own_rows * own_length // chunk)
    size = -(-own_length // steps)
    padding = parts * steps * size - length

    def chunks(values: jax.Array) -> jax.Array:
        padded = jnp.pad(values, ((0, 0), (0, padding), *((0, 0),) * (values.ndim - 2)))
        return jnp.moveaxis(padded.reshape(batch, parts, steps, size, *values.shape[2:]), 2, 0)

    def whole(values: jax.Array) -> jax.Array:
        return jnp.moveaxis(values, 0, 2).reshape(batch, -1)[:, :length]

    def score(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model.logits(hidden) / temperature
        log_total = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        mean_logit = jnp.sum(jax.nn.softmax(logits, axis=-1) * logits, axis=-1)
        return picked - log_total, log_total - mean_logit

    def score_with_slope(hidden: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        def scores(of: jax.Array) -> tuple[jax.Array, jax.Array]:
            return score(of, targets)

        point = jax.lax.stop_gradient(hidden)
        logprobs, slope_of, entropy = jax.vjp(scores, point, has_aux=True)
        (slope,) = slope_of(jnp.ones_like(logprobs))
        # Adds 0 to the value and only carries the gradient: each score depends only on its own hidden state.
        linear = jnp.sum(((hidden - point) * jax.lax.stop_gradient(slope)).astype(jnp.float32), axis=-1)
        return jax.lax.stop_gradient(logprobs) + linear, jax.lax.stop_gradient(entropy)

    function = jax.checkpoint(score) if head_is_trained else score_with_slope
    logprobs, entropy = jax.lax.map(lambda pair: function(*pair), (chunks(hidden), chunks(targets)))
    return whole(logprobs), whole(entropy)
