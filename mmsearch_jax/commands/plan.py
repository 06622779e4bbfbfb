"""`mmsearch plan`: its arguments. JAX and the planner are imported when it runs."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch_jax.commands.command import Command
from mmsearch_jax.core.errors import ConfigError

if TYPE_CHECKING:
    from mmsearch_jax.core.config_files import Loaded
    from mmsearch_jax.settings.commands import LearnerSettings

_REPORTED = 3
# Silences libtpu's warning that this machine is not a TPU host; the topology names the hardware to compile for.
QUIET = {
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def _add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="config file of the job")
    command.add_argument("--print-config", action="store_true", help="print every setting, and plan nothing")
    command.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:SHAPE",
        help="v5p:2x2x4, v5e:4x8, 7x:4x4x4:2 (two slices), h100:16, ...",
    )
    command.add_argument(
        "--size", default="", help="3b, 7b, 32b or 72b, if neither checkpoint nor config name gives it"
    )
    command.add_argument(
        "--programs", default="", help="comma-separated: sft, grpo, prefill, extend, decode (default: the config's)"
    )
    command.add_argument(
        "--search", action="store_true", help="try meshes, batch rows and remat, compile the most promising"
    )
    command.add_argument(
        "--best", type=int, default=_REPORTED, metavar="N", help="number of settings to compile (default: %(default)s)"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the plans to this file")
    command.add_argument("--sample-tokens", type=int, default=3000, help="tokens per sample (default: %(default)s)")
    command.add_argument(
        "--sampled-tokens",
        type=int,
        default=800,
        help="tokens of a sample that a rollout samples (default: %(default)s)",
    )
    command.add_argument(
        "--price",
        type=_price,
        default=0.0,
        metavar="DOLLARS",
        help="of one device for one hour; adds the cost of all steps",
    )


def _price(text: str) -> float:
    price = float(text)
    if not 0 <= price < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a price: give dollars, such as 4.20")
    return price


def _run(options: argparse.Namespace) -> None:
    # Before JAX starts: it must not use this machine's TPU or GPU.
    from mmsearch_jax.planning.devices import ENVIRONMENT

    os.environ.update({**ENVIRONMENT, **QUIET})
    from mmsearch_jax.distributed.topologies import parse

    topology = parse(options.topology)
    if topology.num_domains > 1 and not topology.chip.network:
        parts = "slices" if topology.is_tpu else "machines"
        raise ConfigError(
            f"{topology.name} cannot be planned: the rate of the network between its {parts} is unknown; plan one of them"
        )
    # A config with a mesh for the topology uses it, unless the user sets or searches for the mesh.
    own_mesh = options.search or any(each.startswith("--config.mesh.") for each in options.overrides)
    settings = _load(options, "" if own_mesh else options.topology)
    if options.print_config:
        print("\n".join(settings.lines()))
        return
    if not options.search:
        from mmsearch_jax.distributed.layout import mesh_sizes

        mesh_sizes(settings.settings.mesh, topology.num_devices)
    from mmsearch_jax.jobs.plan import plan_programs, search_settings
    from mmsearch_jax.planning.sizes import model_of
    from mmsearch_jax.planning.stage import Assumed

    logging.getLogger("jax").setLevel(logging.ERROR)
    config = settings.settings
    names, model = _names(options.programs, config), model_of(config.checkpoint, options.size, options.config.stem)
    if options.search:
        made = search_settings(config, model, topology, names, options.best)
    else:
        assumed = Assumed(options.sample_tokens, options.sampled_tokens, options.price)
        made = plan_programs(config, model, topology, names, assumed)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"config": str(options.config), **made}, indent=2, default=float)
        options.json.write_text(text + "\n", encoding="utf-8")


def _load(options: argparse.Namespace, topology: str) -> Loaded[LearnerSettings]:
    from mmsearch_jax.core.config_files import resolve, run_config_file

    values = run_config_file(options.config, topology).to_dict()
    return resolve(tree_of(values, options.config), values, options.overrides)


def tree_of(values: dict[str, Any], config: Path) -> type[LearnerSettings]:
    """The tree of the job that a config's values describe.

    Raises:
      ConfigError: they describe none.
    """
    from mmsearch_jax.settings.commands import GRPOSettings, QuickstartSettings, SFTSettings

    trees: dict[tuple[str, ...], type[LearnerSettings]] = {
        ("grpo", "sft"): QuickstartSettings,
        ("sft",): SFTSettings,
        ("grpo",): GRPOSettings,
    }
    tree = trees.get(tuple(name for name in ("grpo", "sft") if name in values))
    if tree is None:
        raise ConfigError(f"{config} has neither 'sft' nor 'grpo': there is no job to plan")
    return tree


def _names(given: str, config: LearnerSettings) -> tuple[str, ...]:
    if given:
        return tuple(name.strip() for name in given.split(","))
    return ("grpo", "prefill", "extend", "decode") if hasattr(config, "grpo") else ("sft",)


COMMAND = Command(
    "plan",
    "Estimates a job on hardware that is not present: memory, FLOPs, collectives, time, and what would fit instead.\n"
    "Compiles the config's own programs for the slice; needs no TPU, but libtpu: pip install 'mmsearch-jax[plan]'.",
    _run,
    (
        "mmsearch plan --config configs/sft_qwen2_5_vl_7b.py --topology v5p:2x2x4 --config.mesh.fsdp=8 \\\n"
        "      --config.mesh.tensor=2",
        "mmsearch plan --config configs/grpo_qwen2_5_vl_7b.py --topology v5e:4x8 --programs grpo --search --json plan.json",
    ),
    _add_arguments,
)
