"""`mmsearch plan`: compiles a config's programs for hardware that is not present, and prints their costs and what would fit."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import Topology
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning import report, search, stage
from mmsearch_jax.planning.advice import advice, held_advice
from mmsearch_jax.planning.analyse import Plan, analyse
from mmsearch_jax.planning.devices import devices_of
from mmsearch_jax.planning.programs import programs_of
from mmsearch_jax.settings.commands import LearnerSettings


def plan_programs(
    config: LearnerSettings, model: ModelConfig, topology: Topology, names: tuple[str, ...], assumed: stage.Assumed
) -> dict[str, Any]:
    """Prints the plans of the named programs; returns the content of `--json`.

    Raises:
      ConfigError: the mesh does not divide the topology, libtpu is missing, or the config lacks the stage.
    """
    console = Console(width=None if os.environ.get("COLUMNS") or Console().is_terminal else 160)
    plans = _analysed(config, model, topology, names, console)
    report.print_plans(plans, console)
    stages = stage.stage_estimates(config, plans, topology, assumed)
    if stages:
        report.print_stages(stages, assumed, console)
    told = [advice(config, model, topology, plan) for plan in plans if not plan.fits]
    told += [held_advice(config, each, plans) for each in stages if not each.fits]
    for text in dict.fromkeys(told):
        console.print(text, style="bold", highlight=False)
    return {
        "topology": topology.name,
        "plans": [report.record(plan) for plan in plans],
        "stages": [vars(each) for each in stages],
        "assumed": vars(assumed),
        "advice": told,
        "notes": report.NOTES,
    }


def search_settings(
    config: LearnerSettings, model: ModelConfig, topology: Topology, names: tuple[str, ...], num_best: int
) -> dict[str, Any]:
    """Prints the fastest settings that fit, compiled; returns the content of `--json`.

    Args:
      num_best: number of settings to compile.

    Raises:
      ConfigError: no learner's program is named; see also `plan_programs`.
    """
    stages = [name for name in names if name in ("sft", "grpo")]
    if len(stages) != 1:
        raise ConfigError("--search finds a learner's setting: name one of sft and grpo with --programs")
    console = Console(width=None if os.environ.get("COLUMNS") or Console().is_terminal else 160)
    # Estimating starts JAX, after which no CPU devices can be added. This also reports a missing libtpu first.
    devices_of(topology)
    with console.status("estimating settings"):
        found = list(search.candidates(config, stages[0], model, topology))
    best = found[:num_best]
    console.print(f"{len(found)} settings fit by the hand count; compiling the {len(best)} that should be fastest")
    records = []
    for candidate in best:
        plans = _analysed(candidate.config(config), model, topology, (stages[0],), console)
        learning = max(plans, key=lambda plan: plan.program.work.model * plan.program.times)
        records.append(
            {
                "overrides": candidate.overrides,
                "tokens_per_second_per_chip": learning.tokens_per_second_per_chip,
                "mfu": learning.mfu,
                "bound": learning.roofline.bound if learning.roofline else None,
                "step_seconds": sum(plan.program.times * (plan.seconds or 0) for plan in plans),
                "estimated_batch_seconds": candidate.seconds,
                "plans": [report.record(plan) for plan in plans],
            }
        )
    # The order by estimate can differ from that of the compiled plans.
    records.sort(key=lambda setting: -(setting["tokens_per_second_per_chip"] or 0))
    if records:
        report.print_settings(records, topology, console)
    else:
        console.print(f"nothing fits {topology.name}: take a larger slice", style="bold")
    return {"topology": topology.name, "fitting": len(found), "best": records}


def _analysed(
    config: LearnerSettings, model: ModelConfig, topology: Topology, names: tuple[str, ...], console: Console
) -> list[Plan]:
    plans = []
    for program in programs_of(config, model, topology, names):
        with console.status(f"compiling {program.name} for {topology.name}"):
            plan, _ = analyse(program, topology)
        console.print(f"compiled {program.name} in {plan.compile_seconds:.0f} s", style="dim", highlight=False)
        plans.append(plan)
    return plans
