"""The loss of GRPO and its relatives as pure functions of log-probs: ratio, clipped surrogate, KL, aggregation.

They work only on arrays. The options by their names in the literature:

  GRPO (arXiv 2402.03300)      aggregation="sequence", advantages divided by the group's deviation
  DeepMMSearch-R1 (sec. 3.2)   the same without the division
  DAPO (arXiv 2503.14476)      aggregation="token", clip_high=0.28, kl_coef=0
  Dr. GRPO (arXiv 2503.20783)  aggregation="constant", no division, kl_coef=0
  GSPO (arXiv 2507.18071)      ratio="sequence", aggregation="sequence", clip_low=3e-4, clip_high=4e-4, kl_coef=0
  dual-clip PPO (arXiv 1912.09729)  dual_clip=3 there; the default is larger, so that it acts only on extreme ratios
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
    """Inputs of the loss, [B, L] each; all except `policy` are constants.

    Attributes:
      policy: log-probs of the sampled tokens, with gradient.
      old: log-probs under the policy at the start of the batch, computed by the learner; used only with `importance_cap`.
      rollout: log-probs that the sampler recorded.
      reference: log-probs under the frozen policy; used only with `kl_coef`.
      advantages: float.
      loss_mask: bool, True on tokens that are trained; other tokens have no influence.
      segment_ids: int; index of the sequence within its row that a token belongs to.
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
    """Sum of the values over each token's sequence."""

    def of_row(row: jax.Array, segments: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(row, segments, num_segments=row.shape[0] + 1)[segments]

    return jax.vmap(of_row)(values, segment_ids)


def grpo_loss(scored: ScoredTokens, config: GRPOLossConfig) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Loss to minimise, and its metrics.

    Returns:
      The scalar loss, and kl, clip_fraction, max_ratio, rollout_learner_kl (k3 estimate between sampler and learner: their
      numerical mismatch; after the batch's first update and without `importance_cap` it includes the policy's change) and
      weight (number of tokens or sequences in the mean: losses of several batches averaged by weight equal the loss of all).
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
    if config.dual_clip:
        # Ye et al., arXiv 1912.09729, eq. 5: the minimum is unbounded below if the advantage is negative and the ratio large.
        bounded = jnp.maximum(surrogate, config.dual_clip * scored.advantages)
        surrogate = jnp.where(scored.advantages < 0, bounded, surrogate)
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
    """The mean by `config.aggregation`, and the number of tokens or sequences that it covers."""
    if config.aggregation == "token":
        weight = ones.sum()
        return per_token.sum() / jnp.maximum(weight, 1.0), weight
    sequences = (ones / lengths).sum()
    divisor = lengths if config.aggregation == "sequence" else config.constant_length
    return (per_token / divisor).sum() / jnp.maximum(sequences, 1e-6), sequences
