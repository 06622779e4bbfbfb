"""The GRPO family's losses and their gradients against TRL's, on the same log-probs.

TRL computes its loss in a method of its trainer; the test calls it on an object with only the attributes that it reads.
"""

import types
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from mmsearch_jax.learners.losses import ScoredTokens, grpo_loss
from mmsearch_jax.settings.learning import GRPOLossConfig

B, L = 5, 17
# Name -> TRL's settings, our settings.
CASES = {
    "GRPO": ({"loss_type": "grpo", "beta": 0.04}, {"aggregation": "sequence", "kl_coef": 0.04}),
    "token mean, clip-higher, KL": (
        {"loss_type": "bnpo", "beta": 0.1, "epsilon_high": 0.28},
        {"aggregation": "token", "kl_coef": 0.1, "clip_high": 0.28},
    ),
    "DAPO": ({"loss_type": "dapo", "epsilon_high": 0.28}, {"aggregation": "token", "clip_high": 0.28, "kl_coef": 0.0}),
    "Dr. GRPO": (
        {"loss_type": "dr_grpo", "max_completion_length": 40},
        {"aggregation": "constant", "constant_length": 40, "kl_coef": 0.0},
    ),
    "GSPO": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
        {"aggregation": "sequence", "ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "kl_coef": 0.0},
    ),
    "dual clip": (
        {
            "loss_type": "grpo",
            "args": types.SimpleNamespace(use_bias_correction_kl=False, delta=1.5, steps_per_generation=1),
        },
        {"aggregation": "sequence", "dual_clip": 1.5, "kl_coef": 0.0},
    ),
    "truncated importance sampling": (
        {"loss_type": "bnpo", "use_vllm": True},
        {"aggregation": "token", "importance_cap": 2.0, "kl_coef": 0.0},
    ),
}


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(3)
    policy, reference = (-rng.exponential(1.0, (B, L)) for _ in range(2))
    old = policy + 0.3 * rng.normal(size=(B, L))
    rollout = old + 0.5 * rng.normal(size=(B, L))
    advantages = np.broadcast_to(rng.normal(size=(B, 1)), (B, L))
    # Observations are between the policy's tokens, and rows have different lengths.
    mask = (rng.random((B, L)) < 0.7) & (np.arange(L) < rng.integers(6, L, (B, 1)))
    mask[:, 0] = True
    return ScoredTokens(policy, old, rollout, reference, advantages, mask, np.ones((B, L), np.int32))


def loss_and_gradient_of_trl(scored, settings, importance_cap):
    policy = torch.tensor(scored.policy, requires_grad=True)
    mask = torch.tensor(scored.loss_mask, dtype=torch.float64)
    behind = scored.old if importance_cap else scored.rollout
    trainer = types.SimpleNamespace(
        **{
            "_get_per_token_logps_and_entropies": lambda *args, **kwargs: (policy, torch.zeros_like(policy), None),
            "importance_sampling_level": "token",
            "beta": 0.0,
            "epsilon_low": 0.2,
            "epsilon_high": 0.2,
            "use_vllm": False,
            "vllm_importance_sampling_correction": True,
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "aux_loss_enabled": False,
            "_entropy_bonus_enabled": False,
            "current_gradient_accumulation_steps": 1,
            "model": types.SimpleNamespace(training=True),
            "args": types.SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
            "accelerator": types.SimpleNamespace(
                num_processes=1, reduce=lambda value, reduction: value, gather=lambda value: value
            ),
            "_metrics": {"train": defaultdict(list)},
            **settings,
        }
    )
    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.long),
        "prompt_mask": torch.ones(B, 1),
        "completion_ids": torch.zeros(B, L, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.tensor(scored.advantages[:, 0].copy()),
        "old_per_token_logps": torch.tensor(behind),
        "ref_per_token_logps": torch.tensor(scored.reference),
        "num_items_in_batch": mask.sum(),
        "importance_sampling_ratio": torch.exp(torch.tensor(scored.old - scored.rollout)).clamp(max=importance_cap),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return loss.item(), policy.grad.numpy()


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_trl(name, scored):
    of_trl, of_ours = CASES[name]
    config = GRPOLossConfig(**of_ours)
    wanted, wanted_gradient = loss_and_gradient_of_trl(scored, of_trl, config.importance_cap)
    with jax.enable_x64(True):
        on_device = ScoredTokens(*map(jnp.asarray, scored))
        loss, gradient = jax.value_and_grad(lambda policy: grpo_loss(on_device._replace(policy=policy), config)[0])(
            on_device.policy
        )
    difference = float(np.abs(np.asarray(gradient) - wanted_gradient).max())
    print(
        f"\n  {name:30s} loss {wanted:+.6f}, differs by {abs(float(loss) - wanted):.1e}, its gradient by {difference:.1e}"
    )
    np.testing.assert_allclose(float(loss), wanted, rtol=1e-12)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-9, atol=1e-12)
    assert np.abs(wanted_gradient).max() > 1e-3
