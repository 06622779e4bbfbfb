"""`mmsearch plan`: compiles a config's programs for a slice that is not here, prints what they take, and what would fit."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

import ml_collections
from rich.console import Console

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.distributed.topologies import Topology, parse
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.planning.devices import ENVIRONMENT, devices_of

_REPORTED = 3
# Keeps libtpu from complaining that this machine is no TPU host; what it compiles for is named by the topology.
QUIET = {
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="config file of the job")
    command.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:SHAPE",
        help="v5p:2x2x4, v5e:4x8, 7x:4x4x4:2 (two slices), h100:16, ...",
    )
    command.add_argument(
        "--size", default="", help="3b, 7b, 32b or 72b, where neither checkpoint nor config name says it"
    )
    command.add_argument(
        "--programs", default="", help="comma-separated: sft, grpo, prefill, extend, decode (default: the config's)"
    )
    command.add_argument(
        "--search", action="store_true", help="try meshes, batch rows and remat, compile the most promising"
    )
    command.add_argument(
        "--best", type=int, default=_REPORTED, metavar="N", help="how many --search compiles (default: %(default)s)"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the plans there, too")
    command.add_argument("--sample-tokens", type=int, default=3000, help="of a conversation (default: %(default)s)")
    command.add_argument(
        "--sampled-tokens", type=int, default=800, help="of these, sampled in a rollout (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Runs the command.

    Raises:
      ConfigError: no such topology, a mesh that does not divide it, no libtpu, a config without the stage.
    """
    # Before JAX starts: neither a TPU nor a GPU of this machine is wanted.
    os.environ.update({**ENVIRONMENT, **QUIET})
    topology = parse(options.topology)
    if topology.num_domains > 1 and not topology.chip.network:
        parts = "slices" if topology.is_tpu else "machines"
        raise ConfigError(
            f"{topology.name} cannot be planned: the rate of the network between its {parts} is not known; plan one of them"
        )
    from mmsearch_jax.core.config_files import load_config
    from mmsearch_jax.planning.sizes import model_of

    logging.getLogger("jax").setLevel(logging.ERROR)
    # A config that knows a mesh for the topology gets it, unless the mesh is what the user sets or looks for.
    own_mesh = options.search or any(each.startswith("--config.mesh.") for each in options.overrides)
    config = load_config(options.config, options.overrides, "" if own_mesh else options.topology)
    names = _names(options.programs, config)
    model = model_of(config.checkpoint, options.size, options.config.stem)
    if options.search:
        _search(options, config, model, topology, names)
    else:
        _plan(options, config, model, topology, names)


def _names(given: str, config: ml_collections.ConfigDict) -> tuple[str, ...]:
    if given:
        return tuple(name.strip() for name in given.split(","))
    if "grpo" in config:
        return ("grpo", "prefill", "extend", "decode")
    if "sft" in config:
        return ("sft",)
    raise ConfigError("the config has neither 'sft' nor 'grpo': there is no job to plan")


def _plan(
    options: argparse.Namespace,
    config: ml_collections.ConfigDict,
    model: ModelConfig,
    topology: Topology,
    names: tuple[str, ...],
) -> None:
    from mmsearch_jax.planning import report, stage
    from mmsearch_jax.planning.advice import advice, held_advice

    console = Console(width=None if os.environ.get("COLUMNS") or Console().is_terminal else 160)
    plans = _analysed(config, model, topology, names, console)
    report.print_plans(plans, console)
    assumed = stage.Assumed(options.sample_tokens, options.sampled_tokens)
    stages = stage.stage_estimates(config, plans, topology, assumed)
    if stages:
        report.print_stages(stages, assumed, console)
    told = [advice(config, model, topology, plan) for plan in plans if not plan.fits]
    told += [held_advice(config, each, plans) for each in stages if not each.fits]
    for text in dict.fromkeys(told):
        console.print(text, style="bold", highlight=False)
    _write(
        options.json,
        {
            "config": str(options.config),
            "topology": topology.name,
            "plans": [report.record(plan) for plan in plans],
            "stages": [vars(each) for each in stages],
            "assumed": vars(assumed),
            "advice": told,
            "notes": report.NOTES,
        },
    )


def _search(
    options: argparse.Namespace,
    config: ml_collections.ConfigDict,
    model: ModelConfig,
    topology: Topology,
    names: tuple[str, ...],
) -> None:
    from mmsearch_jax.planning import report, search

    stages = [name for name in names if name in ("sft", "grpo")]
    if len(stages) != 1:
        raise ConfigError("--search looks for a learner's setting: name one of sft and grpo with --programs")
    console = Console(width=None if os.environ.get("COLUMNS") or Console().is_terminal else 160)
    # Estimating starts JAX, and then it is too late for more CPU devices; and who lacks libtpu is told before.
    devices_of(topology)
    with console.status("estimating settings"):
        found = list(search.candidates(config, stages[0], model, topology))
    best = found[: options.best]
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
    # The order by estimate is not always that of the compiled plans.
    records.sort(key=lambda setting: -(setting["tokens_per_second_per_chip"] or 0))
    if records:
        report.print_settings(records, topology, console)
    else:
        console.print(f"nothing fits {topology.name}: take a larger slice", style="bold")
    _write(
        options.json, {"config": str(options.config), "topology": topology.name, "fitting": len(found), "best": records}
    )


def _analysed(
    config: ml_collections.ConfigDict, model: ModelConfig, topology: Topology, names: tuple[str, ...], console: Console
) -> list[Any]:
    from mmsearch_jax.planning.analyse import analyse
    from mmsearch_jax.planning.programs import programs_of

    plans = []
    for program in programs_of(config, model, topology, names):
        with console.status(f"compiling {program.name} for {topology.name}"):
            plan, _ = analyse(program, topology)
        console.print(f"compiled {program.name} in {plan.compile_seconds:.0f} s", style="dim", highlight=False)
        plans.append(plan)
    return plans


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, default=float) + "\n", encoding="utf-8")
