"""The GRPO loss and its parts against their formulas, written out in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmsearch_jax.learners.advantages import group_advantages
from mmsearch_jax.learners.losses import GRPOLossConfig, grpo_loss


def case(seed=0, rows=3, length=7):
    rng = np.random.default_rng(seed)
    policy, rollout, ref = (-rng.exponential(1.0, (rows, length)) for _ in range(3))
    rollout = policy + 0.4 * rng.normal(size=policy.shape)
    advantages = np.repeat(rng.normal(size=(rows, 1)), length, 1)
    mask = rng.random((rows, length)) < 0.6
    mask[:, 1] = True
    weights = np.repeat(1.0 / mask.sum(1, keepdims=True), length, 1)
    return policy, rollout, ref, advantages, mask, weights


def expected(policy, rollout, ref, advantages, mask, _, config):
    """PPO's clipped surrogate with a KL penalty (arXiv 1707.06347, 2402.03300), token by token in plain loops."""
    per_row = []
    for row in range(len(policy)):
        terms = []
        for t in np.flatnonzero(mask[row]):
            ratio = np.exp(policy[row, t] - rollout[row, t])
            clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
            d = ref[row, t] - policy[row, t]
            kl = {"k1": -d, "k2": d * d / 2, "k3": np.exp(d) - d - 1}[config.kl_estimator]
            terms.append(-min(ratio * advantages[row, t], clipped * advantages[row, t]) + config.kl_coef * kl)
        per_row.append(terms)
    if config.aggregation == "token":
        return sum(map(sum, per_row)) / sum(map(len, per_row))
    return np.mean([np.mean(terms) for terms in per_row])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_loss_equals_the_formula(estimator, aggregation):
    config = GRPOLossConfig(clip_low=0.2, clip_high=0.28, kl_coef=0.1, kl_estimator=estimator, aggregation=aggregation)
    values = case()
    with jax.enable_x64(True):
        loss, _ = grpo_loss(*(jnp.asarray(value) for value in values), config)
        assert float(loss) == pytest.approx(expected(*values, config), rel=1e-10)


def test_tokens_outside_the_mask_have_no_influence_on_loss_or_gradient():
    policy, rollout, ref, advantages, mask, weights = case(1)
    config = GRPOLossConfig(kl_coef=0.1)

    def loss(policy, rollout, ref):
        return grpo_loss(
            policy, rollout, ref, jnp.asarray(advantages), jnp.asarray(mask), jnp.asarray(weights), config
        )[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(policy), jnp.asarray(rollout), jnp.asarray(ref))
    other = np.where(mask, policy, -50.0), np.where(mask, rollout, -0.01), np.where(mask, ref, -90.0)
    assert float(loss(*map(jnp.asarray, other))) == pytest.approx(float(value), rel=1e-6)
    assert np.all(np.asarray(gradient)[~mask] == 0)
    assert np.any(np.asarray(gradient)[mask] != 0)


def test_advantages_are_relative_to_the_group_and_sum_to_zero():
    rewards, groups = [1.0, 0.0, 0.1, 1.0, 1.0], ["a", "a", "a", "b", "b"]
    plain = group_advantages(rewards, groups)
    np.testing.assert_allclose(plain, [1 - 1.1 / 3, -1.1 / 3, 0.1 - 1.1 / 3, 0, 0], atol=1e-6)
    scaled = group_advantages(rewards, groups, normalise_std=True)
    np.testing.assert_allclose(scaled[:3], plain[:3] / np.std(rewards[:3]), rtol=1e-4)
    np.testing.assert_allclose(scaled[3:], 0)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="use k1, k2 or k3"):
        GRPOLossConfig(kl_estimator="k4")
