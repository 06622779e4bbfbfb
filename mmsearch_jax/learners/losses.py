"""The GRPO loss as a pure function of log-probs: clipped surrogate, KL to the reference, aggregation.

It knows arrays only. Formulas: PPO's clipped surrogate (arXiv 1707.06347), GRPO (arXiv 2402.03300), the k1, k2, k3
estimators of KL (Schulman, "Approximating KL divergence", 2020). Legend: B rows, L tokens.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class GRPOLossConfig:
    """Attributes:
    clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
    kl_coef: weight of the KL to the reference policy; `kl_estimator` is "k1", "k2" or "k3".
    aggregation: "token" (mean over all trained tokens of the batch) or "sequence" (mean over each sequence's tokens,
      then over sequences; needs `sequence_weights`).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.001
    kl_estimator: str = "k3"
    aggregation: str = "token"

    def __post_init__(self) -> None:
        if self.kl_estimator not in ("k1", "k2", "k3"):
            raise ValueError(f"unknown kl_estimator '{self.kl_estimator}': use k1, k2 or k3")
        if self.aggregation not in ("token", "sequence"):
            raise ValueError(f"unknown aggregation '{self.aggregation}': use token or sequence")


def kl_estimate(policy: jax.Array, reference: jax.Array, estimator: str) -> jax.Array:
    """Per-token estimate of KL(policy || reference) in nats, from log-probs of tokens that the policy sampled."""
    difference = reference - policy
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return 0.5 * difference**2
    return jnp.expm1(difference) - difference


def grpo_loss(
    policy_logprobs: jax.Array,
    rollout_logprobs: jax.Array,
    ref_logprobs: jax.Array,
    advantages: jax.Array,
    loss_mask: jax.Array,
    sequence_weights: jax.Array,
    config: GRPOLossConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss to minimise, and its metrics.

    Args:
      policy_logprobs: [B, L], with gradient; the others are constants.
      loss_mask: bool [B, L]; nothing outside it has any influence.
      sequence_weights: float [B, L], 1 / (number of trained tokens in the token's sequence); for "sequence".

    Returns:
      The scalar loss, and kl, clip_fraction, max_ratio, rollout_learner_kl (k3 of the same policy seen by sampler and
      learner: on the first update of a batch it shows their numerical mismatch) and weight (tokens or sequences that the
      mean is over: with it the losses of several batches average to that of all of them).
    """
    mask = loss_mask.astype(policy_logprobs.dtype)
    log_ratio = jnp.where(loss_mask, policy_logprobs - rollout_logprobs, 0.0)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages)
    kl = jnp.where(loss_mask, kl_estimate(policy_logprobs, ref_logprobs, config.kl_estimator), 0.0)
    per_token = jnp.where(loss_mask, -surrogate + config.kl_coef * kl, 0.0)
    tokens = jnp.maximum(mask.sum(), 1.0)
    weights = jnp.where(loss_mask, sequence_weights if config.aggregation == "sequence" else 1.0, 0.0)
    weight = weights.sum()
    loss = (per_token * weights).sum() / jnp.maximum(weight, 1e-6)
    metrics = {
        "weight": weight,
        "kl": kl.sum() / tokens,
        "clip_fraction": (jnp.where(loss_mask, clipped != ratio, False)).sum() / tokens,
        "max_ratio": jnp.max(jnp.where(loss_mask, ratio, 0.0)),
        "rollout_learner_kl": (jnp.where(loss_mask, jnp.expm1(log_ratio) - log_ratio, 0.0)).sum() / tokens,
    }
    return loss, metrics
