"""The loss of GRPO and its relatives as pure functions of log-probs: ratio, clipped surrogate, KL, aggregation.

They know arrays only. What each option is called in the literature:

  GRPO (arXiv 2402.03300)      aggregation="sequence", advantages divided by the group's deviation
  DeepMMSearch-R1 (sec. 3.2)   the same without the division
  DAPO (arXiv 2503.14476)      aggregation="token", clip_high=0.28, kl_coef=0
  Dr. GRPO (arXiv 2503.20783)  aggregation="constant", no division, kl_coef=0
  GSPO (arXiv 2507.18071)      ratio="sequence", aggregation="sequence", clip_low=3e-4, clip_high=4e-4, kl_coef=0
  truncated importance sampling (Yao et al., "Your efficient RL framework secretly brings you off-policy RL training",
                               2025)   importance_cap=2

Legend: B rows, L tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmsearch_jax.settings.learning import GRPOLossConfig


class ScoredTokens(NamedTuple):
    """What the loss looks at, [B, L] each; all but `policy` are constants.

    Attributes:
      policy: log-probs of the sampled tokens, with gradient.
      old: those of the policy that the batch began with, as the learner computes them; used with `importance_cap` only.
      rollout: the sampler's own.
      reference: of the frozen policy; used with a `kl_coef` only.
      advantages: float.
      loss_mask: bool, True on tokens that are trained; no other token has any influence.
      segment_ids: int; which sequence of its row a token belongs to.
    """

    policy: Float[Array, "B L"]
    old: Float[Array, "B L"]
    rollout: Float[Array, "B L"]
    reference: Float[Array, "B L"]
    advantages: Float[Array, "B L"]
    loss_mask: Bool[Array, "B L"]
    segment_ids: Int[Array, "B L"]


def kl_estimate(
    policy: Float[Array, "*batch"], reference: Float[Array, "*batch"], estimator: str
) -> Float[Array, "*batch"]:
    """Per-token estimate of KL(policy || reference) in nats, from log-probs of tokens that the policy sampled."""
    difference = reference - policy
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return 0.5 * difference**2
    return jnp.expm1(difference) - difference


def sequence_sums(values: Float[Array, "B L"], segment_ids: Int[Array, "B L"]) -> Float[Array, "B L"]:
    """Each token's sum over its sequence."""

    def of_row(row: jax.Array, segments: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(row, segments, num_segments=row.shape[0] + 1)[segments]

    return jax.vmap(of_row)(values, segment_ids)


def grpo_loss(scored: ScoredTokens, config: GRPOLossConfig) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Loss to minimise, and its metrics.

    Returns:
      The scalar loss, and kl, clip_fraction, max_ratio, rollout_learner_kl (k3 of one policy as sampler and learner see it:
      their numerical mismatch, or, after the batch's first update and without `importance_cap`, also what was learnt since)
      and weight (tokens or sequences that the mean is over: with it the losses of several batches average to that of all).
    """

    def masked(values: jax.Array) -> jax.Array:
        return jnp.where(scored.loss_mask, values, 0.0)

    ones = masked(jnp.ones_like(scored.policy))
    lengths = jnp.maximum(sequence_sums(ones, scored.segment_ids), 1.0)
    behind = scored.old if config.importance_cap else scored.rollout
    log_ratio = masked(scored.policy - behind)
    if config.ratio == "sequence":
        log_ratio = masked(sequence_sums(log_ratio, scored.segment_ids) / lengths)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    surrogate = jnp.minimum(ratio * scored.advantages, clipped * scored.advantages)
    mismatch = masked((scored.old if config.importance_cap else scored.policy) - scored.rollout)
    importance = ones
    if config.importance_cap:
        importance = masked(jax.lax.stop_gradient(jnp.minimum(jnp.exp(mismatch), config.importance_cap)))
    kl = masked(kl_estimate(scored.policy, scored.reference, config.kl_estimator)) if config.kl_coef else 0.0 * ones
    per_token = masked(-importance * surrogate + config.kl_coef * kl)
    loss, weight = _aggregate(per_token, ones, lengths, config)
    tokens = jnp.maximum(ones.sum(), 1.0)
    metrics = {
        "weight": weight,
        "kl": kl.sum() / tokens,
        "clip_fraction": jnp.where(scored.loss_mask, clipped != ratio, False).sum() / tokens,
        "max_ratio": jnp.max(masked(ratio)),
        "rollout_learner_kl": masked(jnp.expm1(mismatch) - mismatch).sum() / tokens,
        "importance": importance.sum() / tokens,
    }
    return loss, metrics


def _aggregate(
    per_token: Float[Array, "B L"], ones: Float[Array, "B L"], lengths: Float[Array, "B L"], config: GRPOLossConfig
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean by `config.aggregation`, and the number of tokens or sequences that it is over."""
    if config.aggregation == "token":
        weight = ones.sum()
        return per_token.sum() / jnp.maximum(weight, 1.0), weight
    sequences = (ones / lengths).sum()
    divisor = lengths if config.aggregation == "sequence" else config.constant_length
    return (per_token / divisor).sum() / jnp.maximum(sequences, 1e-6), sequences
