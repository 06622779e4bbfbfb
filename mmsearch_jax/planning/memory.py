"""The hand count of a planned learner: `hand_count` with the bytes of its abstract state. It prunes `search` and explains the
compiler's figure."""

from __future__ import annotations

from mmsearch_jax.planning.abstract import Learner, batch_shapes, bytes_per_chip
from mmsearch_jax.planning.hand_count import HandCount, Held, LearnerSizes, count

__all__ = ["HandCount", "hand_count"]


def hand_count(learner: Learner) -> HandCount:
    """The hand count of the program that computes a batch's loss and gradients."""
    state = learner.state
    batch = learner.mesh.abstract_batch(batch_shapes(learner.shape, learner.model.vision))
    held = Held(*map(bytes_per_chip, (state.frozen, state.params, state.opt_state, batch)))
    mesh = learner.mesh.mesh.shape
    return count(LearnerSizes(learner.model, learner.shape, mesh, learner.remat, learner.half, learner.full, held))
