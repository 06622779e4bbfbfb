"""Policy updates from a batch of trajectories: pack, score by reference and old policy, train for one or more epochs.

The processes exchange their trajectories, and each plans the same batches from all of them. If each packed only its own, most
of a pod's batches would be padding: a mini-batch of 64 trajectories is less than one row for each of 256 chips.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.trajectory import Trajectory
from mmsearch_jax.data.batch_plan import cut_evenly, fill_of, filled, halved_shapes, plan_batches
from mmsearch_jax.data.batches import TokenBatch, TrainingSequence, check_patches, check_sequence
from mmsearch_jax.data.sequence_bytes import from_bytes, to_bytes
from mmsearch_jax.distributed.processes import bytes_of_all
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.losses import ScoredTokens, grpo_loss
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.throughput import step_flops
from mmsearch_jax.learners.train_state import JittedUpdate, JittedZeros, TrainState, apply_gradients, trains_head
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig

EXTRAS = ("advantages", "rollout_logprobs")
"""Additional arrays in GRPO's batches."""


class Updated(NamedTuple):
    """The new state, metrics of the updates, and their FLOPs over all processes."""

    state: TrainState
    metrics: dict[str, float]
    flops: float


def training_sequence(
    trajectory: Trajectory, advantage: float, image: ProcessedImage | None, model: ModelConfig
) -> TrainingSequence:
    """The trajectory as the learner reads it: the sampler's token ids, positions and log-probs; nothing is encoded again.

    Args:
      image: None if the question has none.
    """
    positions, _ = mrope_positions(trajectory.token_ids, trajectory.image_grids, model)
    loss_weights = np.asarray(trajectory.loss_mask, np.float32)
    extras = {
        "rollout_logprobs": np.asarray(trajectory.logprobs, np.float32),
        "advantages": np.full(len(loss_weights), advantage, np.float32),
    }
    ids = np.asarray(trajectory.token_ids, np.int32)
    images = [] if image is None else [image]
    return TrainingSequence(
        ids, positions, loss_weights, images, model.image_token_id, extras, layout=model.vision.layout
    )


def fitting(sequences: Sequence[TrainingSequence], shape: BatchShape) -> tuple[list[TrainingSequence], int]:
    """The sequences that fit into an empty batch of this shape, and the number of the others.

    A trajectory can exceed its budget by the few tokens that complete a closing tag; it must not end the run.
    """
    kept = []
    for sequence in sequences:
        try:
            check_sequence(sequence, shape)
        except DataError:
            continue
        kept.append(sequence)
    return kept, len(sequences) - len(kept)


class PolicyUpdater:
    """The jitted functions, and the loop over mini-batches and epochs.

    Args:
      graph: of the model whose parameters the train states hold.
      reference: parameters of the frozen reference policy, with the same shardings as the state's. For a model with LoRA these
        are the initial updates: both policies share the base.
      config: loss, batch, mini-batches, epochs, and sampling temperature (the loss uses the temperature of the sampler).
      full, train_vision: which parameters are trained (see `step_flops`).

    Attributes:
      shape: of the largest batch.

    `score(params, frozen, batch)` returns log-probs, `accumulate(state, total, batch)` adds a batch's gradients to the total,
    `apply(state, total, weight)` makes an update from the total.
    """

    def __init__(
        self,
        graph: Any,
        reference: Any,
        optimizer: Any,
        config: GRPOConfig,
        model: ModelConfig,
        mesh: LearnerMesh,
        *,
        full: bool = True,
        train_vision: bool = False,
    ):
        self._reference, self._config, self._model, self._mesh = reference, config.loss, model, mesh
        temperature = config.temperature
        check_patches(config.batch, model.vision.layout, "grpo.batch")
        self.shape = config.batch
        self._shapes = halved_shapes(config.batch, config.halvings, mesh.row_parts, mesh.token_parts)
        self._updates, self._epochs = config.updates_per_batch, config.epochs
        self._full, self._train_vision = full, train_vision

        def loss(params: Any, frozen: Any, batch: TokenBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
            model = nnx.merge(graph, frozen, params)
            found = token_logprobs(model, batch, temperature, head_is_trained=trains_head(params))
            loss_mask, extras = batch.loss_mask, batch.extras
            nothing = jnp.zeros_like(found.logprobs)
            value, metrics = grpo_loss(
                ScoredTokens(
                    found.logprobs,
                    extras.get("old_logprobs", nothing),
                    extras["rollout_logprobs"],
                    extras.get("ref_logprobs", nothing),
                    extras["advantages"],
                    loss_mask,
                    batch.segment_ids,
                ),
                config.loss,
            )
            entropy = jnp.where(loss_mask, found.entropy, 0.0).sum() / jnp.maximum(loss_mask.sum(), 1)
            return value, {"loss": value, "entropy": entropy, **metrics}

        def grpo_batch(state: TrainState, total: Any, batch: TokenBatch) -> tuple[Any, dict[str, jax.Array]]:
            (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, state.frozen, batch)
            return jax.tree.map(lambda t, g: t + metrics["weight"] * g, total, gradients), metrics

        def grpo_apply(state: TrainState, total: Any, weight: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
            return apply_gradients(state, jax.tree.map(lambda t: t / weight, total), optimizer)

        def grpo_score(params: Any, frozen: Any, batch: TokenBatch) -> jax.Array:
            return token_logprobs(nnx.merge(graph, frozen, params), batch, temperature).logprobs

        self._zeros = JittedZeros()
        self.accumulate = mesh.jit(grpo_batch, donate_argnums=1)
        self.apply = mesh.inside(JittedUpdate(grpo_apply))
        self.score = mesh.jit(grpo_score)

    def learn(self, state: TrainState, sequences: Sequence[TrainingSequence]) -> Updated:
        """Updates the policy from the sequences of all processes (a collective: every process must call it).

        The state is donated. If no process has a sequence, nothing changes.
        """
        everyone = _sequences_of_all(sequences)
        parts = [
            self._packed(everyone[part.start : part.stop])
            for part in cut_evenly([len(sequence) for sequence in everyone], self._updates)
        ]
        batches = [self._scored(state, part) for part in parts if part]
        flops = sum(self._flops(batch) for part in parts for batch in part)
        records: list[dict[str, jax.Array]] = []
        for _ in range(self._epochs):
            for of_update in batches:
                state, metrics = self._update(state, of_update)
                records += metrics
        # Only now: a read after each batch would let the devices wait for the host.
        means = _averages([{k: float(v) for k, v in record.items()} for record in jax.device_get(records)])
        made = {"updates": self._epochs * len(batches), "batches": sum(map(len, parts))}
        fill = fill_of(batch for part in parts for batch in part)
        return Updated(state, means | made | fill.shares(), self._epochs * flops)

    def _packed(self, sequences: Sequence[TrainingSequence]) -> list[TokenBatch]:
        return [filled(sequences, planned) for planned in plan_batches(sequences, self._shapes)]

    def _scored(self, state: TrainState, batches: Sequence[TokenBatch]) -> list[TokenBatch]:
        """The batches on the mesh, with the log-probs of the other policies that the loss needs."""
        made = []
        for whole in batches:
            batch = self._mesh.whole_batch(whole)
            more = {}
            if self._config.kl_coef:
                more["ref_logprobs"] = self.score(self._reference, state.frozen, batch)
            if self._config.importance_cap:
                more["old_logprobs"] = self.score(state.params, state.frozen, batch)
            made.append(batch._replace(extras={**batch.extras, **more}))
        return made

    def _update(
        self, state: TrainState, batches: Sequence[TokenBatch]
    ) -> tuple[TrainState, list[dict[str, jax.Array]]]:
        total, parts = self._zeros(state.params), []
        for batch in batches:
            total, metrics = self.accumulate(state, total, batch)
            parts.append(metrics)
        weight = functools.reduce(operator.add, (part["weight"] for part in parts))
        state, applied = self.apply(state, total, weight)
        return state, [{**part, **applied} for part in parts]

    def _flops(self, batch: TokenBatch) -> float:
        scorings = bool(self._config.kl_coef) + bool(self._config.importance_cap)
        return step_flops(self._model, batch, full=self._full, train_vision=self._train_vision, scorings=scorings)


def _sequences_of_all(own: Sequence[TrainingSequence]) -> Sequence[TrainingSequence]:
    """The sequences of all processes, in their order (a collective)."""
    if jax.process_count() == 1:
        return own
    return [sequence for encoded in bytes_of_all(to_bytes(own)) for sequence in from_bytes(encoded)]


def _averages(records: Sequence[dict[str, float]]) -> dict[str, float]:
    if not records:
        return {}
    weights = [record["weight"] for record in records]
    means = {
        name: float(np.average([r[name] for r in records], weights=weights)) for name in records[0] if name != "weight"
    }
    return means | {name: max(record[name] for record in records) for name in ("max_ratio", "skipped_updates")}
