"""Learning from given texts: the loop of pretraining and of SFT.

Next-token loss on weighted tokens, normalised by the total weight of the global batch. It knows nothing of where
sequences come from or of what they say.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.errors import DataError
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.metrics import RunLog
from mmsearch_jax.learners.train_state import (
    OptimizerConfig,
    TrainState,
    apply_gradients,
    create_train_state,
    jit_update,
    make_optimizer,
    split_model,
)
from mmsearch_jax.models.lora import with_dropout
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL


def weighted_loss(model: Any, batch: TokenBatch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean negative log-likelihood in nats over the batch's loss weights, and its metrics."""
    logprobs = token_logprobs(model, batch).logprobs
    weights = jnp.asarray(batch.loss_weights)
    total = jnp.maximum(jnp.sum(weights), 1e-6)
    fully = weights >= 1.0
    count = jnp.maximum(jnp.sum(fully), 1)
    metrics = {
        "target_nll": -jnp.sum(jnp.where(fully, logprobs, 0.0)) / count,
        "target_tokens": count,
        # Share of tokens that the policy would be sure of: more telling than the mean for copied text.
        "target_sure": jnp.sum(fully & (logprobs > jnp.log(0.5))) / count,
    }
    return -jnp.sum(weights * logprobs) / total, metrics


def make_update(
    graph: Any, optimizer: optax.GradientTransformation, seed: int = 0
) -> Callable[[TrainState, TokenBatch], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted training step; the state is donated (see `jit_update`). `seed` and the step choose LoRA's dropout."""

    def loss(params: Any, frozen: Any, batch: TokenBatch, step: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), step)
        return weighted_loss(with_dropout(nnx.merge(graph, frozen, params), key), batch)

    def update(state: TrainState, batch: TokenBatch) -> tuple[TrainState, dict[str, jax.Array]]:
        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.frozen, batch, state.step
        )
        state, more = apply_gradients(state, gradients, optimizer)
        return state, {"loss": value, **metrics, **more}

    return jit_update(update)


def train(
    model: Qwen2_5_VL,
    batches: Callable[[int], Iterator[TokenBatch]],
    num_steps: int,
    optimizer: OptimizerConfig,
    workdir: str | Path,
    phase: str,
    *,
    seed: int = 0,
    freeze: tuple[str, ...] = (),
    checkpoint_every: int = 0,
    resume: bool = True,
    show_progress: bool = True,
) -> Qwen2_5_VL:
    """Trains for `num_steps` updates and returns the trained model (the given one is left as it is).

    Args:
      batches: gives the batches from a step on; the same step must give the same batches again.
      workdir: takes metrics.jsonl, TensorBoard events and checkpoints/<phase>.
      seed: of LoRA's dropout.
      freeze: top-level modules that are not trained ("vision").
      checkpoint_every: steps between checkpoints; 0 writes one at the end only.
      resume: go on from the newest checkpoint in the work folder.

    Raises:
      DataError: the batches end before the steps do.
      CheckpointError: the checkpoint to resume from is of another config.
    """
    graph, trained, frozen = split_model(model, freeze)
    transformation = make_optimizer(optimizer, num_steps)
    state = create_train_state(trained, frozen, transformation)
    update = make_update(graph, transformation, seed)
    with Checkpoints(Path(workdir) / "checkpoints" / phase) as checkpoints:
        if resume and checkpoints.latest_step is not None:
            state, _ = checkpoints.restore(state)
        start = int(state.step)
        with RunLog(workdir, phase, num_steps, start, show_progress) as log:
            stream = _prefetched(batches(start))
            for step in range(start + 1, num_steps + 1):
                began = time.monotonic()
                batch = next(stream, None)
                if batch is None:
                    raise DataError(f"{phase}: the data end after {step - 1} of {num_steps} steps: repeat them")
                waited = time.monotonic() - began
                state, metrics = update(state, batch)
                metrics = jax.device_get(metrics)
                seconds = time.monotonic() - began
                tokens = int(np.count_nonzero(batch.segment_ids))
                metrics |= {
                    "tokens_per_second": tokens / seconds,
                    "data_seconds": waited,
                    "fill": tokens / batch.segment_ids.size,
                }
                log.write(step, metrics, shown=("loss", "target_nll", "target_sure", "tokens_per_second"))
                if step == num_steps or (checkpoint_every and step % checkpoint_every == 0):
                    checkpoints.save(step, state)
    return nnx.merge(graph, state.frozen, state.params)


def _prefetched(batches: Iterator[TokenBatch], depth: int = 2) -> Iterator[TokenBatch]:
    """Makes the next batches in a thread while the device works."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def produce() -> None:
        try:
            for batch in batches:
                while not stop.is_set():
                    try:
                        ready.put(batch, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
            ready.put(None)
        except Exception as error:  # handed to the consumer, which raises it
            ready.put(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
