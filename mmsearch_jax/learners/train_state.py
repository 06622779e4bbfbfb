"""The train state (parameters, optimiser state, step) and optax's optimisers by name.

Frozen parameters are kept out of the differentiated tree, so that they need neither gradients nor optimiser memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int32, Shaped

from mmsearch_jax.settings.learning import OptimizerConfig


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning rate by step."""
    if config.decay == "constant":
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, config.learning_rate, max(1, config.warmup_steps)),
                optax.constant_schedule(config.learning_rate),
            ],
            [config.warmup_steps],
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup_steps else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(num_steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_fraction,
    )


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """The optimiser with its schedule and clipping."""
    schedule = make_schedule(config, num_steps)
    if config.name == "adamw":
        update = optax.adamw(schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=_matrices)
    else:
        # With this deviation Muon's updates are as large as AdamW's (arXiv 2502.16982), so one learning rate serves both.
        update = optax.contrib.muon(
            schedule,
            adam_b1=config.b1,
            adam_b2=config.b2,
            weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=_kernels,
            consistent_rms=0.2,
        )
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), update)


def _matrices(params: Any) -> Any:
    """Weight decay applies to weights only, not to norms and biases (which are 1-D, or 2-D when stacked over layers)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(key, "key", None) in ("kernel", "embedding", "lm_head") for key in path), params
    )


def _kernels(params: Any) -> Any:
    """Which parameters Muon updates, and which of their dims form the matrix: kernels, whose leading dim may be that of layers.

    Without this, optax takes every 2-D array for a matrix (also the embedding, or stacked biases) and no stacked kernel.
    """
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: matrix if any(getattr(key, "key", None) == "kernel" for key in path) else None, params
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """Trainable and frozen parameters (`nnx` states), optimiser state, number of updates made, and number of updates
    that were skipped because a gradient was not finite."""

    params: Any
    frozen: Any
    opt_state: Any
    step: Int32[Array, ""]
    skipped: Int32[Array, ""]


def split_model(model: nnx.Module, freeze: tuple[str, ...] = ()) -> tuple[Any, Any, Any]:
    """Graph, trainable state and frozen state; `freeze` lists top-level modules ("vision") that are not trained.

    In a model with LoRA only the low-rank updates are trained.
    """
    has_lora = bool(jax.tree.leaves(nnx.state(model, nnx.LoRAParam)))

    def frozen(path: tuple[Any, ...], variable: Any) -> bool:
        return str(path[0]) in freeze or (has_lora and not issubclass(variable.type, nnx.LoRAParam))

    graph, kept, trained = nnx.split(model, frozen, ...)
    return graph, trained, kept


def trains_head(params: Any) -> bool:
    """Whether the vocabulary projection, or the embedding that is tied to it, is trainable."""
    return any(path[-1] in ("embedding", "lm_head") for path, _ in nnx.to_flat_state(params))


def create_train_state(trained: Any, frozen: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh state with copies of the parameters: updates donate their buffers, which the caller may still use."""
    params = jax.tree.map(jnp.copy, trained)
    return TrainState(params, frozen, optimizer.init(params), jnp.int32(0), jnp.int32(0))


class JittedZeros:
    """Zeros in the shapes and shardings of a tree of arrays, made on its devices: the initial sum of gradients."""

    def __init__(self) -> None:
        self._jitted: Any = None

    def __call__(self, like: Any) -> Any:
        if self._jitted is None:
            places = jax.tree.map(lambda leaf: leaf.sharding, like)
            self._jitted = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), out_shardings=places)
        return self._jitted(like)


class JittedUpdate:
    """Jits `update(state, *arguments) -> (state, metrics)`, which must not change frozen parameters.

    The state is donated except for its frozen parameters, which the original model still uses. The program has the
    update's name, under which profilers list it.
    """

    def __init__(self, update: Callable[..., tuple[TrainState, Any]]):
        self._update, self._jitted = update, None
        self.__name__ = update.__name__

    def __call__(self, state: TrainState, *arguments: Any) -> tuple[TrainState, Any]:
        new, metrics = self._for(state)(dataclasses.replace(state, frozen=None), state.frozen, *arguments)
        return dataclasses.replace(new, frozen=state.frozen), metrics

    def lower(self, state: TrainState, *arguments: Any) -> Any:
        """Lowers the update like `jax.jit(...).lower`, from arrays or from shapes with shardings."""
        return self._for(state).lower(dataclasses.replace(state, frozen=None), state.frozen, *arguments)

    def _for(self, state: TrainState) -> Any:
        if self._jitted is None:
            # Outputs keep the shardings of the inputs. Otherwise the compiler may choose others and recompile.
            places = jax.tree.map(lambda leaf: leaf.sharding, dataclasses.replace(state, frozen=None))

            def inner(learnt: TrainState, frozen: Any, *arguments: Any) -> tuple[TrainState, Any]:
                state, metrics = self._update(dataclasses.replace(learnt, frozen=frozen), *arguments)
                return dataclasses.replace(state, frozen=None), metrics

            inner.__name__ = self.__name__
            self._jitted = jax.jit(inner, donate_argnums=0, out_shardings=(places, None))
        return self._jitted


def apply_gradients(
    state: TrainState, gradients: Any, optimizer: optax.GradientTransformation
) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
    """One update; a non-finite gradient changes neither parameters nor optimiser and is counted."""
    norm = optax.global_norm(gradients)
    finite = jnp.isfinite(norm)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

    new = TrainState(
        keep(params, state.params),
        state.frozen,
        keep(opt_state, state.opt_state),
        state.step + 1,
        state.skipped + ~finite,
    )
    return new, {"grad_norm": norm, "skipped_updates": new.skipped}
