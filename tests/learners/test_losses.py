"""The losses of GRPO and its variants against their formulas, in float64 NumPy with plain loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.learners.advantages import group_advantages
from mmsearch_jax.learners.losses import ScoredTokens, grpo_loss
from mmsearch_jax.settings.learning import GRPOLossConfig

# Two rows; three sequences of unequal length share the first, and padding ends both.
SEGMENTS = np.array([[1] * 5 + [2] * 3 + [3] * 4 + [0] * 2, [1] * 9 + [0] * 5])


def case(seed=0, noise=0.4):
    rng = np.random.default_rng(seed)
    policy, reference = (-rng.exponential(1.0, SEGMENTS.shape) for _ in range(2))
    old = policy + noise * rng.normal(size=policy.shape)
    rollout = old + 0.5 * rng.normal(size=policy.shape)
    advantages = np.zeros(SEGMENTS.shape)
    for row, segment in sequences():
        advantages[row, SEGMENTS[row] == segment] = rng.normal()
    mask = (rng.random(SEGMENTS.shape) < 0.6) & (SEGMENTS > 0)
    mask[:, [1, 6, 9]] = SEGMENTS[:, [1, 6, 9]] > 0
    return ScoredTokens(policy, old, rollout, reference, advantages, mask, SEGMENTS)


def sequences():
    return [(row, segment) for row in range(len(SEGMENTS)) for segment in np.unique(SEGMENTS[row]) if segment]


def terms(scored, config, ratio_of):
    """The token losses of every sequence: PPO's clipped surrogate (arXiv 1707.06347) and a KL penalty."""
    made = []
    for row, segment in sequences():
        places = np.flatnonzero((SEGMENTS[row] == segment) & scored.loss_mask[row])
        made.append([])
        for t in places:
            ratio = ratio_of(row, t, places)
            clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
            advantage = scored.advantages[row, t]
            d = scored.reference[row, t] - scored.policy[row, t]
            kl = {"k1": -d, "k2": d * d / 2, "k3": np.exp(d) - d - 1}[config.kl_estimator]
            weight = 1.0
            if config.importance_cap:
                weight = min(np.exp(scored.old[row, t] - scored.rollout[row, t]), config.importance_cap)
            made[-1].append(-weight * min(ratio * advantage, clipped * advantage) + config.kl_coef * kl)
    return made


def of_token(scored, behind):
    return lambda row, t, places: np.exp(scored.policy[row, t] - behind[row, t])


def of_sequence(scored, behind):
    return lambda row, t, places: np.exp(np.mean(scored.policy[row, places] - behind[row, places]))


def computed(scored, config):
    with jax.enable_x64(True):
        return float(grpo_loss(ScoredTokens(*map(jnp.asarray, scored)), config)[0])


def grpo(made):
    return np.mean([np.mean(tokens) for tokens in made])


def dapo(made):
    return sum(map(sum, made)) / sum(map(len, made))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize(("aggregation", "mean"), [("token", dapo), ("sequence", grpo)])
def test_grpo_and_dapo(estimator, aggregation, mean):
    config = GRPOLossConfig(0.2, 0.28, 0.1, estimator, aggregation)
    scored = case()
    assert computed(scored, config) == pytest.approx(mean(terms(scored, config, of_token(scored, scored.rollout))))


def test_dr_grpo_divides_by_a_constant_not_by_the_length():
    config = GRPOLossConfig(kl_coef=0.0, aggregation="constant", constant_length=20)
    scored = case(1)
    expected = np.mean([sum(tokens) / 20 for tokens in terms(scored, config, of_token(scored, scored.rollout))])
    assert computed(scored, config) == pytest.approx(expected)


def test_gspo_has_one_ratio_a_sequence():
    config = GRPOLossConfig(0.05, 0.1, 0.0, aggregation="sequence", ratio="sequence")
    scored = case(2, noise=0.05)
    scored = scored._replace(rollout=scored.old)
    made = terms(scored, config, of_sequence(scored, scored.rollout))
    assert computed(scored, config) == pytest.approx(grpo(made))
    # Shows that the test distinguishes token ratios from sequence ratios.
    assert computed(scored, config) != pytest.approx(grpo(terms(scored, config, of_token(scored, scored.rollout))))


def test_truncated_importance_sampling_weighs_by_the_capped_mismatch():
    config = GRPOLossConfig(0.2, 0.2, 0.05, aggregation="token", importance_cap=1.3)
    scored = case(3)
    assert computed(scored, config) == pytest.approx(dapo(terms(scored, config, of_token(scored, scored.old))))
    weights = np.exp(scored.old - scored.rollout)[scored.loss_mask]
    assert weights.min() < 1 < 1.3 < weights.max()


def gradient(scored, config):
    with jax.enable_x64(True):
        scored = ScoredTokens(*map(jnp.asarray, scored))
        return np.asarray(jax.grad(lambda policy: grpo_loss(scored._replace(policy=policy), config)[0])(scored.policy))


def test_without_clipping_the_gradient_is_that_of_policy_gradient_with_capped_weights():
    # If policy = old policy, the surrogate's gradient is -weight * advantage / tokens.
    scored = case(4)
    scored = scored._replace(old=scored.policy)
    config = GRPOLossConfig(0.5, 0.5, 0.0, aggregation="token", importance_cap=1.2)
    weights = np.minimum(np.exp(scored.old - scored.rollout), 1.2)
    expected = np.where(scored.loss_mask, -weights * scored.advantages / scored.loss_mask.sum(), 0)
    np.testing.assert_allclose(gradient(scored, config), expected, rtol=1e-9)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_the_gradient_equals_finite_differences(ratio):
    config = GRPOLossConfig(0.2, 0.28, 0.1, "k3", "sequence", ratio=ratio)
    scored = case(5, noise=0.1)
    found, step = gradient(scored, config), 1e-6
    for row, t in ((0, 1), (0, 6), (0, 9), (1, 1), (1, 6)):
        move = np.zeros(SEGMENTS.shape)
        move[row, t] = step
        ends = [computed(scored._replace(policy=scored.policy + sign * move), config) for sign in (1, -1)]
        assert found[row, t] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_tokens_outside_the_mask_have_no_influence_on_loss_or_gradient(ratio):
    scored = case(1)
    config = GRPOLossConfig(kl_coef=0.1, aggregation="token", ratio=ratio, importance_cap=2.0)
    noise = {
        name: np.where(scored.loss_mask, getattr(scored, name), -50.0)
        for name in ("policy", "old", "rollout", "reference")
    }
    assert computed(scored._replace(**noise), config) == pytest.approx(computed(scored, config))
    found = gradient(scored, config)
    assert np.all(found[~scored.loss_mask] == 0) and np.any(found[scored.loss_mask] != 0)


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_losses_of_two_batches_average_to_that_of_both(aggregation):
    config = GRPOLossConfig(aggregation=aggregation, constant_length=10)
    scored = case(6)
    parts = []
    for row in range(2):
        with jax.enable_x64(True):
            loss, metrics = grpo_loss(ScoredTokens(*(jnp.asarray(value[row : row + 1]) for value in scored)), config)
            parts.append((float(loss), float(metrics["weight"])))
    values, weights = zip(*parts, strict=True)
    assert np.average(values, weights=weights) == pytest.approx(computed(scored, config))


def test_advantages_are_relative_to_the_group_and_sum_to_zero():
    rewards, groups = [1.0, 0.0, 0.1, 1.0, 1.0], ["a", "a", "a", "b", "b"]
    plain = group_advantages(rewards, groups)
    np.testing.assert_allclose(plain, [1 - 1.1 / 3, -1.1 / 3, 0.1 - 1.1 / 3, 0, 0], atol=1e-6)
    scaled = group_advantages(rewards, groups, normalise_std=True)
    np.testing.assert_allclose(scaled[:3], plain[:3] / np.std(rewards[:3]), rtol=1e-4)
    np.testing.assert_allclose(scaled[3:], 0)


def test_the_dual_clip_bounds_the_loss_of_a_negative_advantage_and_nothing_else():
    scored = case(seed=4, noise=1.5)
    # All negative except the last sequence's.
    scored = scored._replace(advantages=np.abs(scored.advantages) * np.where(np.arange(2)[:, None] == 0, -1, 1))
    ratio = np.exp(scored.policy - scored.rollout)
    assert (ratio[scored.loss_mask & (scored.advantages < 0)] > 3).any()
    off = GRPOLossConfig(kl_coef=0.0, dual_clip=0.0)
    on = dataclasses.replace(off, dual_clip=3.0)
    made = terms(scored, off, of_token(scored, scored.rollout))
    bounded = [
        [
            min(value, -3.0 * scored.advantages[row, t]) if scored.advantages[row, t] < 0 else value
            for value, t in zip(values, np.flatnonzero((SEGMENTS[row] == segment) & scored.loss_mask[row]), strict=True)
        ]
        for values, (row, segment) in zip(made, sequences(), strict=True)
    ]
    assert computed(scored, off) == pytest.approx(grpo(made), rel=1e-9)
    assert computed(scored, on) == pytest.approx(grpo(bounded), rel=1e-9) and grpo(bounded) < grpo(made)
    mild = case(seed=4, noise=0.1)
    assert computed(mild, on) == computed(mild, off)


def test_a_dual_clip_within_the_clip_is_refused():
    with pytest.raises(ConfigError, match="dual_clip is 1.2, within the clip's own range: set it above 1.2, or to 0"):
        GRPOLossConfig(dual_clip=1.2)
