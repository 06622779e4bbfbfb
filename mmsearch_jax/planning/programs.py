"""The programs of a job, lowered from abstract shapes: the same functions that the learners and the engine jit.

Learner programs run on all chips of a slice, the sampler's on those of one host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.learners.policy_update import EXTRAS, PolicyUpdater
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.models.attention import compiling_for
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning import abstract
from mmsearch_jax.planning.abstract import Learner
from mmsearch_jax.planning.devices import devices_of
from mmsearch_jax.planning.model_flops import Work
from mmsearch_jax.rollout import jitted, programs, sampling
from mmsearch_jax.rollout.placement import host_meshes, weight_spec
from mmsearch_jax.rollout.sequence import bucket
from mmsearch_jax.settings.commands import GRPOSettings, LearnerSettings, SFTSettings

PROGRAMS = ("sft", "grpo", "prefill", "extend", "decode")


@dataclasses.dataclass(frozen=True)
class Program:
    """One device program.

    Attributes:
      name: such as "grpo update".
      lower: makes the lowered program (slow).
      mesh: mesh of its devices.
      arguments: abstract arrays that it reads, for the hand count.
      work: FLOPs and tokens that the method needs.
      times: runs in one step of its stage (an update of SFT, a rollout batch of GRPO; 1 for the sampler's).
      learner: the learner that it belongs to; None for the sampler's.
      learns: whether it computes gradients, so that `memory.hand_count` applies.
    """

    name: str
    lower: Callable[[], Any]
    mesh: Mesh
    arguments: Any
    work: Work
    times: float = 1.0
    learner: Learner | None = None
    learns: bool = False


def programs_of(
    config: LearnerSettings, model: ModelConfig, topology: Topology, names: tuple[str, ...]
) -> Iterator[Program]:
    """The programs with the given names of `PROGRAMS`.

    Raises:
      ConfigError: the config has no such stage, or does not fit the slice.
    """
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        raise ConfigError(f"no program '{unknown[0]}': known are {', '.join(PROGRAMS)}")
    if "sft" in names:
        abstract.stage_of(config, "sft")
        yield from sft_programs(cast(SFTSettings, config), model, topology)
    if "grpo" in names:
        abstract.stage_of(config, "grpo")
        yield from grpo_programs(cast(GRPOSettings, config), model, topology)
    if rollout := [name for name in names if name in ("prefill", "extend", "decode")]:
        yield from rollout_programs(config, model, topology, rollout)


def sft_programs(config: SFTSettings, model: ModelConfig, topology: Topology) -> Iterator[Program]:
    """The update from one batch, or its two parts if several batches make one update."""
    settings = config.sft
    made = abstract.learner(config, "sft", model, abstract.mesh_on(config, topology, "sft"), settings.num_steps)
    update = SupervisedUpdate(made.graph, made.optimizer, config.seed, made.mesh)
    batch = made.mesh.abstract_batch(abstract.batch_shapes(made.shape, model.vision))
    work = Work.learning(made)
    if settings.accumulate == 1:
        yield _program("sft update", update.at_once, (made.state, batch), made, topology, work, learns=True)
        return
    total = made.state.params
    number, weight = made.mesh.on_mesh((_scalar(jnp.int32), _scalar(jnp.float32)))
    yield _program(
        "sft batch",
        update.add,
        (made.state, total, batch, number),
        made,
        topology,
        work,
        settings.accumulate,
        used=(made.state.params, made.state.frozen, total, batch),
        learns=True,
    )
    yield _program(
        "sft apply",
        update.finish,
        (made.state, total, weight),
        made,
        topology,
        Work.nothing(),
        used=(total, made.state.params, made.state.opt_state),
    )


def grpo_programs(config: GRPOSettings, model: ModelConfig, topology: Topology) -> Iterator[Program]:
    """Scoring by the reference (and the old policy), a batch's gradients, the update."""
    settings = config.grpo
    recipe = settings.loss
    updates = settings.updates_per_batch * settings.epochs
    made = abstract.learner(
        config, "grpo", model, abstract.mesh_on(config, topology, "grpo"), settings.num_steps * updates
    )
    updater = PolicyUpdater(made.graph, made.state.params, made.optimizer, settings, model, made.mesh, full=made.full)
    scored = [
        name for name, used in (("ref_logprobs", recipe.kl_coef), ("old_logprobs", recipe.importance_cap)) if used
    ]
    plain = made.mesh.abstract_batch(abstract.batch_shapes(made.shape, model.vision, EXTRAS))
    batch = made.mesh.abstract_batch(abstract.batch_shapes(made.shape, model.vision, (*EXTRAS, *scored)))
    total = made.state.params
    weight = made.mesh.on_mesh(_scalar(jnp.float32))
    batches = batches_per_step(config)
    if scored:
        yield _program(
            "grpo score",
            updater.score,
            (made.state.params, made.state.frozen, plain),
            made,
            topology,
            Work.scoring(made),
            batches * len(scored),
        )
    yield _program(
        "grpo batch",
        updater.accumulate,
        (made.state, total, batch),
        made,
        topology,
        Work.learning(made),
        batches * settings.epochs,
        used=(made.state.params, made.state.frozen, total, batch),
        learns=True,
    )
    yield _program(
        "grpo apply",
        updater.apply,
        (made.state, total, weight),
        made,
        topology,
        Work.nothing(),
        updates,
        used=(total, made.state.params, made.state.opt_state),
    )


def batches_per_step(config: GRPOSettings) -> float:
    """Batches that hold a step's trajectories, if each has half of the maximum length; at least one per update."""
    settings, shape = config.grpo, config.grpo.batch
    tokens = settings.prompts_per_step * settings.group_size * config.episode.max_trajectory_tokens / 2
    return max(settings.updates_per_batch, -(-tokens // (shape.rows * shape.length)))


def rollout_programs(
    config: LearnerSettings, model: ModelConfig, topology: Topology, names: list[str]
) -> Iterator[Program]:
    """An engine's calls with the largest buckets, on its chips of one host; the host's other engines do the same.

    "prefill" is a first call of extend with images, "extend" one after full caches, "decode" one of all rows over full caches.
    """
    engine = config.sized_engine
    mesh = host_meshes(engine, devices_of(topology.host))[0]
    graph, shapes = jitted.single_layers(abstract.abstract_model(model, config, trained=False))
    weights = _placed(shapes, mesh)
    cache, hidden = jax.eval_shape(lambda: jitted.empty_slots(model, engine, jnp.dtype(config.dtype)))
    places = jitted.places(mesh, cache, model.text.num_key_value_heads)
    device = jitted.jit_programs(jitted.model_functions(graph, engine), places)
    cache = jax.tree.map(_with_sharding, cache, places.cache)
    hidden = _with_sharding(hidden, places.whole)
    rows, width = max(engine.extend_rows), max(engine.extend_buckets)
    lengths = engine.lengths

    def whole(*dims: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dims, dtype, sharding=places.whole)

    def extend(name: str, length: int, with_images: bool) -> Program:
        features = whole(rows * width, model.text.hidden_size, dtype=jnp.float32) if with_images else None
        index = whole(rows, width) if with_images else None
        given = (
            weights,
            cache,
            hidden,
            whole(rows),
            whole(rows),
            whole(rows, width),
            whole(3, rows, width),
            whole(rows),
            features,
            index,
        )
        before = length - width
        work = Work.feeding(model, rows * width, rows * width * (before + width / 2))
        return Program(name, _lowering(device.extend, given, topology, length=length), mesh, given, work)

    for name in names:
        if name == "prefill":
            yield extend(name, bucket(width, lengths), True)
        elif name == "extend":
            yield extend(name, engine.max_length, False)
        else:
            constants = _decode_constants(model, whole)
            table = programs.no_rows(engine.width)
            given = (
                weights,
                cache,
                hidden,
                jax.tree.map(lambda leaf: whole(*leaf.shape, dtype=leaf.dtype), table),
                whole(engine.width),
                constants,
            )
            tokens = engine.width * engine.decode_steps
            work = Work.sampling(model, tokens, tokens * engine.max_length)
            gather = engine.width != engine.num_slots
            options = {"length": engine.max_length, "gather": gather}
            yield Program(name, _lowering(device.decode, given, topology, **options), mesh, given, work)


def _decode_constants(model: ModelConfig, whole: Callable[..., Any]) -> programs.DecodeConstants:
    vocabulary = model.text.vocab_size
    states = len(sampling.TagAutomaton([], CLOSING_TAGS, 1).table)
    flags = whole(vocabulary, dtype=jnp.bool_)
    return programs.DecodeConstants(whole(states, vocabulary), flags, flags, whole(dtype=jnp.uint32))


def _program(
    name: str,
    function: Any,
    arguments: Any,
    made: Learner,
    topology: Topology,
    work: Work,
    times: float = 1.0,
    used: Any = None,
    learns: bool = False,
) -> Program:
    """Makes a program. `used` are the arguments that it reads; the others are not transferred to the chip."""
    lower = _lowering(function, arguments, topology)
    return Program(name, lower, made.mesh.mesh, arguments if used is None else used, work, float(times), made, learns)


def _lowering(function: Any, arguments: tuple[Any, ...], topology: Topology, **options: Any) -> Callable[[], Any]:
    def lower() -> Any:
        with compiling_for("tpu" if topology.is_tpu else "cpu"):
            return function.lower(*arguments, **options)

    return lower


def _placed(state: Any, mesh: Mesh) -> Any:
    flat = []
    for path, leaf in nnx.to_flat_state(state):
        value = leaf.get_value()
        sharding = NamedSharding(mesh, weight_spec(".".join(map(str, path)), value.shape, mesh))
        flat.append((path, leaf.replace(jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding))))
    return nnx.from_flat_state(flat)


def _with_sharding(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _scalar(dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), np.dtype(dtype))
