"""Rules about machines: mesh, batch, parameters, processes, engine, memory."""

from __future__ import annotations

from collections.abc import Iterator

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.chips import GIB
from mmsearch_jax.distributed.layout import check_batch, check_slices, inner_sizes, mesh_sizes
from mmsearch_jax.distributed.rules import RULES, rules_of, split_axes
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.jobs.check.run import Note, Run
from mmsearch_jax.models.logical_axes import logical_axes, parameter_shapes
from mmsearch_jax.planning.hand_count import count, sampler_bytes, sizes_of

USABLE = 0.8
"""Share of the memory that the hand count may fill without a note (docs/planning.md)."""


def mesh(run: Run) -> Iterator[str]:
    """The mesh makes up the devices, and in SFT each row belongs to one process."""
    if not run.stages or not run.devices:
        return
    config = run.settings.mesh
    try:
        sizes = mesh_sizes(config, run.devices)
    except ConfigError as error:
        raise ConfigError(f"{error}{_other_config(run)}") from error
    if run.topology is not None and run.devices == run.topology.num_devices:
        check_slices(config, run.topology.num_slices if run.topology.is_tpu else 1, is_tpu=run.topology.is_tpu)
    if run.processes:
        if run.devices % run.processes:
            yield f"{run.devices} devices cannot be divided among {run.processes} processes"
            return
        inner_sizes(sizes, run.per_process, whole_rows=any(stage == "sft" for stage, _ in run.stages))


def batch(run: Run) -> Iterator[str]:
    """Rows and tokens of a batch divide over the mesh."""
    if run.mesh is not None:
        for stage, recipe in run.stages:
            check_batch(recipe.batch, f"{stage}.batch", run.mesh)
    yield from ()


def prompts(run: Run) -> Iterator[str]:
    """Every process takes an equal share of the prompts."""
    for stage, recipe in run.stages:
        if stage == "grpo" and run.processes:
            recipe.prompts_of_process(run.processes)
    yield from ()


def parameters(run: Run) -> Iterator[str]:
    """The checkpoint's dims divide over the mesh."""
    if run.mesh is None or run.model is None:
        return
    rules = rules_of(run.settings.sharding_rules)
    for path, shape in parameter_shapes(run.model).items():
        split_axes(logical_axes(path), shape, run.mesh, rules, owner=path)
    text, tensor, sequence = run.model.text, run.mesh["tensor"], run.mesh["sequence"]
    for heads, name in ((text.num_attention_heads, "attention"), (text.num_key_value_heads, "key/value")):
        if heads % (tensor * sequence):
            yield Note(
                f"{heads} {name} heads cannot be split over tensor={tensor} x sequence={sequence}: "
                "part of the attention is computed more than once"
            )


def engine(run: Run) -> Iterator[str]:
    """The engine's chips are on one host, and the checkpoint's dims divide over them."""
    if not run.samples:
        return
    tensor = run.settings.engine.tensor
    if run.per_process and tensor > run.per_process:
        yield f"engine.tensor is {tensor}, but a process has {run.per_process} devices: lower it"
    if run.model is not None:
        sizes = {"dcn": 1, "data": 1, "fsdp": 1, "tensor": tensor, "sequence": 1}
        for path, shape in parameter_shapes(run.model).items():
            split_axes(logical_axes(path), shape, sizes, RULES, owner=f"engine.tensor={tensor}: {path}")


def memory(run: Run) -> Iterator[str]:
    """What learner and engine keep on a chip fits, by the planner's hand count."""
    needed = memory_needed(run)
    if needed is None or run.topology is None:
        return
    available = run.topology.chip.hbm / run.topology.chip.devices
    text = (
        f"about {needed / GIB:.1f} GiB a device are needed (hand count), {run.topology.name} has {available / GIB:.1f}"
    )
    if needed > available:
        yield f"{text}: use a larger topology, fewer rows or slots, or see `mmsearch plan`"
    elif needed > USABLE * available:
        yield Note(f"{text}: the compiler may need more; see `mmsearch plan`")


def memory_needed(run: Run) -> float | None:
    """Bytes on a device by the hand count; None if the sizes are unknown or do not fit together (other rules say so)."""
    if run.model is None or run.settings is None:
        return None
    try:
        learners = [
            count(sizes_of(run.settings, recipe, run.model, run.mesh)).total
            for _, recipe in run.stages
            if run.mesh is not None
        ]
        sampler = sampler_bytes(run.settings, run.model) if run.samples else 0.0
    except ConfigError:
        return None
    if run.stages and not learners:
        return None
    return max(learners, default=0.0) + sampler


def _other_config(run: Run) -> str:
    """A hint for a config whose topology is another than the run's."""
    if run.topology is None or not run.config:
        return ""
    file, _, argument = run.config.partition(".py:")
    file = file.removesuffix(".py")
    if argument:
        try:
            other = parse(argument).name != run.topology.name
        except ConfigError:
            return ""
        return f"; the config is for {argument}: name {file}.py:{run.topology.name}" if other else ""
    return f"; or name the machines after the config's file: {file}.py:{run.topology.name}"
