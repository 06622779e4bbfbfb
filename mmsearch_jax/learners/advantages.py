"""Group-relative advantages: how much better a rollout was than the others of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32


def group_advantages(
    rewards: Sequence[float], group_ids: Sequence[str], normalise_std: bool = False, eps: float = 1e-6
) -> Float32[np.ndarray, "B"]:
    """Reward minus the group's mean; float32, in the order of the input.

    Args:
      normalise_std: also divide by the group's standard deviation (population, plus `eps`). DeepMMSearch-R1 as written
        (sec. 3.2) does not; MMSearch-R1 and the original GRPO do.
    """
    values, groups = np.asarray(rewards, np.float64), np.asarray(group_ids)
    advantages = np.zeros_like(values)
    for group in np.unique(groups):
        members = groups == group
        centred = values[members] - values[members].mean()
        advantages[members] = centred / (values[members].std() + eps) if normalise_std else centred
    return advantages.astype(np.float32)
