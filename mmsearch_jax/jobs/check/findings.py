"""Applies every rule to a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from mmsearch_jax.core.errors import MMSearchError
from mmsearch_jax.distributed.chips import GIB
from mmsearch_jax.jobs.check import files, machines, services
from mmsearch_jax.jobs.check.run import Note, Run

Rule = Callable[[Run], Iterator[str]]
_MACHINES: tuple[Rule, ...] = (
    machines.mesh, machines.batch, machines.prompts, machines.parameters, machines.engine, machines.memory,
)  # fmt: skip
RULES: tuple[Rule, ...] = (
    files.workdir, files.earlier_results, files.checkpoint, files.rows, files.tokenizer, files.benchmarks, files.arguments,
    *_MACHINES, services.ready, services.loopback, services.keys, services.reachable,
)  # fmt: skip


class Findings(NamedTuple):
    """What would stop a run, and what is worth knowing; a line each."""

    problems: list[str]
    notes: list[str]


def check(run: Run) -> Findings:
    """All findings about a run. A rule that stops at its first problem gives only that one."""
    found = list[str]()
    # A plan reports itself what does not fit, and needs no files and no services.
    for rule in RULES if run.command != "plan" else _MACHINES[:-1]:
        try:
            found += rule(run)
        except MMSearchError as error:
            found.append(str(error))
    found = list(dict.fromkeys(found))
    return Findings(
        [each for each in found if not isinstance(each, Note)], [each for each in found if isinstance(each, Note)]
    )


def summary(run: Run) -> str:
    """One line about a run without problems."""
    parts = [f"ready: {run.command}"]
    if run.topology is not None:
        parts.append(f"{run.topology.name}: {run.devices} devices, {run.processes or 1} processes")
    if run.mesh is not None:
        parts.append("mesh " + " ".join(f"{axis}={size}" for axis, size in run.mesh.items() if size > 1))
    if run.topology is not None and (needed := machines.memory_needed(run)) is not None:
        parts.append(f"about {needed / GIB:.1f} GiB a device")
    if run.workdir is not None:
        parts.append(f"work directory {run.workdir}")
    return "; ".join(parts)
