"""Supervised learning: the loop of pretraining and SFT.

Next-token loss on weighted tokens, normalised by the total weight of the global batch. It does not depend on the source or
the content of the sequences.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import operator
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Shaped

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.data.pipeline import Step, merge_states
from mmsearch_jax.data.set_aside import SkippedLog
from mmsearch_jax.distributed.processes import records_of_all, sums_of_all
from mmsearch_jax.learners.checkpoints import Best
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.throughput import step_flops, utilisation
from mmsearch_jax.learners.train_state import (
    JittedUpdate,
    JittedZeros,
    TrainState,
    apply_gradients,
    make_optimizer,
    split_model,
    trains_head,
)
from mmsearch_jax.learners.training_run import RunPlace, TrainingRun
from mmsearch_jax.models.lora import lora_layers, with_dropout
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import OptimizerConfig
from mmsearch_jax.settings.policy import MeshConfig

_SHOWN_SKIPS = 20


def weighted_loss(
    model: Any, batch: TokenBatch, *, head_is_trained: bool = True
) -> tuple[Float[Array, ""], dict[str, Shaped[Array, ""]]]:
    """Mean negative log-likelihood in nats over the batch's loss weights, and its metrics (see `token_logprobs`)."""
    logprobs = token_logprobs(model, batch, head_is_trained=head_is_trained).logprobs
    loss_weights = jnp.asarray(batch.loss_weights)
    total = jnp.maximum(jnp.sum(loss_weights), 1e-6)
    fully = loss_weights >= 1.0
    count = jnp.maximum(jnp.sum(fully), 1)
    metrics = {
        "target_nll": -jnp.sum(jnp.where(fully, logprobs, 0.0)) / count,
        "target_tokens": count,
        # Share of tokens with a probability above 0.5: more informative than the mean for copied text.
        "target_sure": jnp.sum(fully & (logprobs > jnp.log(0.5))) / count,
        "weight": total,
    }
    return -jnp.sum(loss_weights * logprobs) / total, metrics


class SupervisedUpdate:
    """One update from one or several batches; all of their tokens have equal weight, as in one large batch.

    The state is donated (see `JittedUpdate`). `at_once(state, batch)` makes an update from a single batch. For several batches,
    `add(state, total, batch, number)` adds the gradients of one and `finish(state, total, weight)` makes the update.

    Args:
      graph: of the model whose parameters the train states hold.
      seed: determines LoRA's dropout, together with the step and the batch's number.
      mesh: mesh of the states; None for arrays without a mesh.
    """

    def __init__(
        self, graph: Any, optimizer: optax.GradientTransformation, seed: int = 0, mesh: LearnerMesh | None = None
    ):
        def loss(params: Any, frozen: Any, batch: TokenBatch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            model = with_dropout(nnx.merge(graph, frozen, params), key)
            return weighted_loss(model, batch, head_is_trained=trains_head(params))

        def gradients(state: TrainState, batch: TokenBatch, number: Any) -> tuple[Any, dict[str, jax.Array]]:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), number)
            (value, metrics), found = jax.value_and_grad(loss, has_aux=True)(state.params, state.frozen, batch, key)
            return found, {"loss": value, **metrics}

        def sft_update(state: TrainState, batch: TokenBatch) -> tuple[TrainState, dict[str, jax.Array]]:
            found, metrics = gradients(state, batch, 0)
            state, more = apply_gradients(state, found, optimizer)
            return state, {**metrics, **more}

        def sft_batch(
            state: TrainState, total: Any, batch: TokenBatch, number: jax.Array
        ) -> tuple[Any, dict[str, jax.Array]]:
            found, metrics = gradients(state, batch, number)
            return jax.tree.map(lambda t, g: t + metrics["weight"] * g, total, found), metrics

        def sft_apply(state: TrainState, total: Any, weight: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
            return apply_gradients(state, jax.tree.map(lambda t: t / weight, total), optimizer)

        inside: Callable[[Any], Any] = mesh.inside if mesh is not None else lambda function: function
        self.at_once = inside(JittedUpdate(sft_update))
        self._zeros = JittedZeros()
        self.add, self.finish = inside(jax.jit(sft_batch, donate_argnums=1)), inside(JittedUpdate(sft_apply))

    def __call__(self, state: TrainState, batches: Sequence[TokenBatch]) -> tuple[TrainState, dict[str, jax.Array]]:
        """The new state, and metrics over all batches."""
        if len(batches) == 1:
            return self.at_once(state, batches[0])
        total, parts = self._zeros(state.params), []
        for number, batch in enumerate(batches):
            total, metrics = self.add(state, total, batch, jax.device_put(np.int32(number)))
            parts.append(metrics)
        state, more = self.finish(state, total, functools.reduce(operator.add, (part["weight"] for part in parts)))
        return state, {**_joined(parts), **more}


def _joined(parts: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
    """The metrics of several batches combined into those of one."""

    def over(name: str) -> jax.Array:
        return jnp.stack([part[name] for part in parts])

    def mean(name: str, weight: str) -> jax.Array:
        return (over(name) * over(weight)).sum() / over(weight).sum()

    return {
        "weight": over("weight").sum(),
        "target_tokens": over("target_tokens").sum(),
        "loss": mean("loss", "weight"),
        "target_nll": mean("target_nll", "target_tokens"),
        "target_sure": mean("target_sure", "target_tokens"),
    }


@dataclasses.dataclass(frozen=True)
class Updates:
    """The updates of a run.

    Attributes:
      accumulate: batches that make one update.
      freeze: top-level modules that are not trained ("vision").
    """

    num_steps: int
    optimizer: OptimizerConfig
    accumulate: int = 1
    freeze: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Validation:
    """Batches whose loss is measured every few steps (0: only at the end); the checkpoint of the lowest loss is kept."""

    batches: Sequence[TokenBatch]
    every: int = 0

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether the loss is measured after this step."""
        return step == num_steps or (self.every > 0 and step % self.every == 0)


def train(
    model: Qwen2_5_VL,
    data: Callable[[int, Any], Iterator[Step]],
    updates: Updates,
    place: RunPlace,
    *,
    mesh: LearnerMesh | None = None,
    seed: int = 0,
    validation: Validation | None = None,
) -> Qwen2_5_VL:
    """Makes the updates and returns the trained model (the given one does not change).

    Args:
      data: returns this process's part of the batches after a number of steps, or after the state that was saved with them;
        the same position must give the same batches.
      mesh: devices of the learner; by default all devices, with weights and rows split.
      seed: seed of LoRA's dropout.

    Raises:
      DataError: the data end before the last step.
      CheckpointError: the checkpoint to resume from was made with another config.
      TrainingDiverged, Preempted: see `TrainingRun`.
    """
    mesh = mesh or LearnerMesh.of(MeshConfig())
    num_steps, accumulate, freeze, phase = updates.num_steps, updates.accumulate, updates.freeze, place.phase
    graph, trained, frozen = split_model(model, freeze)
    transformation = make_optimizer(updates.optimizer, num_steps)
    state = mesh.train_state(trained, frozen, transformation)
    update = SupervisedUpdate(graph, transformation, seed, mesh)

    def validation_loss(params: Any, frozen: Any, batch: TokenBatch) -> dict[str, jax.Array]:
        return weighted_loss(nnx.merge(graph, frozen, params), batch)[1]

    evaluate = mesh.jit(validation_loss)
    full, train_vision = not lora_layers(model), "vision" not in freeze and not lora_layers(model)
    best = Best("validation_loss", largest=False) if validation else None
    run = TrainingRun(place, num_steps, best=best)
    with run:
        state, start, position = run.begin(state)
        stream = _prefetched(data(start * accumulate, position), mesh.batch)
        left_out: collections.Counter[str] = collections.Counter()
        log = SkippedLog(place.workdir, phase, jax.process_index())
        for step in range(start + 1, num_steps + 1):
            began = time.monotonic()
            ready = list(itertools.islice(stream, accumulate))
            if len(ready) < accumulate:
                raise DataError(f"{phase}: the data end after {step - 1} of {num_steps} steps: repeat them")
            waited = time.monotonic() - began
            steps = [made for made, _ in ready]
            state, computed = update(state, [placed for _, placed in ready])
            metrics: dict[str, Any] = {
                name: value for name, value in jax.device_get(computed).items() if name != "weight"
            }
            seconds = time.monotonic() - began
            counts = _counts(steps, model, full, train_vision)
            metrics |= {
                "tokens_per_second": counts["tokens"] / seconds,
                "data_seconds": waited,
                "step_seconds": seconds,
                "fill": counts["tokens"] / counts["room"],
                **utilisation(counts["flops"], seconds),
            }
            if counts["patch_room"]:
                metrics["patch_fill"] = counts["patches"] / counts["patch_room"]
            _tell_skipped(run, log, left_out, steps)
            metrics["skipped_rows"] = left_out["rows"]
            if validation is not None and validation.is_due(step, num_steps):
                found = [
                    jax.device_get(evaluate(state.params, state.frozen, mesh.batch(batch)))
                    for batch in validation.batches
                ]
                metrics["validation_loss"] = _mean_nll(found)
            run.finish_step(
                step,
                state,
                metrics,
                lambda reached=steps[-1].state: reached and merge_states(records_of_all(reached)),
                ("loss", "target_nll", "target_sure", "tokens_per_second"),
            )
    return nnx.merge(graph, state.frozen, state.params)


def _counts(steps: Sequence[Step], model: Qwen2_5_VL, full: bool, train_vision: bool) -> dict[str, float]:
    """Tokens, patches, capacity for both, and FLOPs of an update, over all processes."""
    seen = [made.batch.vision.image_segment_ids for made in steps if made.batch.vision is not None]
    return sums_of_all(
        {
            "tokens": float(sum(np.count_nonzero(made.batch.segment_ids) for made in steps)),
            "room": float(sum(made.batch.segment_ids.size for made in steps)),
            "patches": float(sum(np.count_nonzero(ids) for ids in seen)),
            "patch_room": float(sum(ids.size for ids in seen)),
            "flops": sum(step_flops(model.config, made.batch, full=full, train_vision=train_vision) for made in steps),
        }
    )


def _tell_skipped(run: TrainingRun, log: SkippedLog, left_out: collections.Counter[str], steps: Sequence[Step]) -> None:
    for skipped in (skipped for made in steps for skipped in made.skipped):
        log.add(skipped.reason)
        left_out["rows"] += 1
        if left_out["rows"] <= _SHOWN_SKIPS:
            run.say(f"skipped: {skipped.reason}")
        if left_out["rows"] == _SHOWN_SKIPS:
            run.say(f"further skipped rows are only counted (skipped_rows), and logged in {log.path}")


def _mean_nll(parts: Sequence[Mapping[str, Any]]) -> float:
    return float(np.average([p["target_nll"] for p in parts], weights=[p["target_tokens"] for p in parts]))


def _prefetched(
    steps: Iterator[Step], place: Callable[[TokenBatch], TokenBatch], depth: int = 2
) -> Iterator[tuple[Step, TokenBatch]]:
    """Makes the next batches in a thread while the device works, and puts them on the device.

    Up to `depth` batches wait on the device, in addition to the one in use.
    """
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for step in steps:
                put((step, place(step.batch)))
                if stop.is_set():
                    return
            put(None)
        except Exception as error:  # passed to the consumer, which raises it
            put(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
