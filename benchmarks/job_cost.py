"""Hours, dollars, judge and search load of a whole training job, estimated from its config.

    python -m benchmarks.job_cost configs/sft_qwen2_5_vl_7b.py:h200:8 --price 3
    python -m benchmarks.job_cost configs/grpo_qwen2_5_vl_7b.py:h200:8 --price 3
    python -m benchmarks.job_cost configs/grpo_qwen2_5_vl_7b.py:v5p:2x2x4 --price 4.2 --plan plan.json
    python -m benchmarks.job_cost configs/grpo_qwen2_5_vl_7b.py:v5p:2x2x4 --price 4.2 --samples-per-day 1204163

Device times are those of one H200 with the 7B (docs/performance.md, "On a GPU"), divided over the devices, those of a plan
(`mmsearch plan ... --json plan.json`), or follow from trajectories per day (the last column of docs/scaling.md). Searches,
waiting and tokens of a trajectory are assumptions; each is an option.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.config_files import load, run_config_file
from mmsearch_jax.core.errors import MMSearchError
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings


@dataclasses.dataclass(frozen=True)
class Rates:
    """One device with the 7B. Defaults: one H200, docs/performance.md.

    Attributes:
      step_seconds: an update of one row of 8,192 tokens.
      scored: log-probs of tokens per second.
      decoded, fed: sampled tokens, and tokens of prompts and observations, per second.
    """

    step_seconds: float = 1.0
    scored: float = 30_201
    decoded: float = 3_414
    fed: float = 39_631


def sft_seconds(settings: SFTSettings, num_devices: int, rates: Rates) -> float:
    """Seconds of a step."""
    batch = settings.sft.batch
    return settings.sft.accumulate * rates.step_seconds * batch.rows * batch.length / 8192 / num_devices


def grpo_seconds(settings: GRPOSettings, num_devices: int, rates: Rates, tokens: int, sampled: int) -> float:
    """Seconds of a step on the devices: rollouts, two passes of log-probs (policy and reference), updates."""
    share = settings.grpo.prompts_per_step * settings.grpo.group_size / num_devices
    rollout = share * (sampled / rates.decoded + (tokens - sampled) / rates.fed)
    rows = share * tokens / 8192
    return rollout + rows * (2 * 8192 / rates.scored + settings.grpo.epochs * rates.step_seconds)


def _planned(file: Path, stage: str) -> float:
    found = [each for each in json.loads(file.read_text(encoding="utf-8"))["stages"] if each["stage"] == stage]
    seconds = [value for each in found for value in (each["learn_seconds"], each["rollout_seconds"] or 0.0)]
    if not seconds or None in seconds:
        sys.exit(f"{file} has no time of a step of {stage}: plan its config, on hardware where it fits")
    return sum(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="config file with a topology: configs/grpo_qwen2_5_vl_7b.py:h200:8")
    parser.add_argument("--price", type=float, required=True, help="dollars of one device for one hour")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--plan", type=Path, help="take the time of a step from this JSON of `mmsearch plan`")
    source.add_argument(
        "--samples-per-day", type=float, help="or from this number of trajectories (GRPO; docs/scaling.md)"
    )
    for name, default, text in (
        ("tokens", 3000, "tokens of a trajectory"),
        ("sampled", 800, "how many of them are sampled"),
        ("searches", 2.8, "searches of a trajectory (benchmarks.scale_sim: searches/s over trajectories/s)"),
        (
            "wait",
            35.0,
            "seconds of a step in which the slowest episodes wait for search and summary (benchmarks.scale_sim)",
        ),
        ("search-price", 0.001, "dollars of a search"),
        ("paid", 1.0, "share of the searches that no cache answers (benchmarks.search_cost)"),
        ("judge-tokens", 500, "tokens of a judgement"),
        ("judge-price", 0.2, "dollars of a million of them"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (default: %(default)s)")
    return parser


def estimate(options: argparse.Namespace) -> dict[str, float]:
    """The figures by name."""
    topology = parse(options.config.partition(".py:")[2])
    stage = "grpo" if "grpo" in run_config_file(options.config) else "sft"
    if stage == "sft" and options.samples_per_day:
        sys.exit("error: --samples-per-day counts trajectories, and this config trains by SFT: give --plan instead")
    if stage == "sft":
        settings = load(SFTSettings, options.config).settings
        num_steps, device = settings.sft.num_steps, sft_seconds(settings, topology.num_chips, Rates())
    else:
        settings = load(GRPOSettings, options.config).settings
        device = grpo_seconds(settings, topology.num_chips, Rates(), options.tokens, options.sampled)
        num_steps = settings.grpo.num_steps
        if options.samples_per_day:
            device = 86400 * settings.grpo.prompts_per_step * settings.grpo.group_size / options.samples_per_day
    device = _planned(options.plan, stage) if options.plan else device
    step = device + (options.wait if stage == "grpo" else 0.0)
    hours = num_steps * step / 3600
    made = {
        "devices": topology.num_chips,
        "steps": num_steps,
        "seconds a step on the devices": device,
        "seconds a step": step,
        "hours": hours,
        "$ of devices": hours * topology.num_chips * options.price,
    }
    if isinstance(settings, GRPOSettings):
        trajectories = num_steps * settings.grpo.prompts_per_step * settings.grpo.group_size
        searches = trajectories * options.searches
        made |= {
            "trajectories": trajectories,
            "judgements": trajectories,
            "judgements a second": trajectories / (3600 * hours),
            "$ of the judge": trajectories * options.judge_tokens * options.judge_price / 1e6,
            "searches": searches,
            "searches a second": searches / (3600 * hours),
            "$ of searches": searches * options.paid * options.search_price,
        }
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the estimate."""
    try:
        made = estimate(_parser().parse_args(arguments))
    except MMSearchError as error:
        sys.exit(f"error: {error}")
    for name, value in made.items():
        digits = 0 if value >= 100 or math.isclose(value, round(value)) else 1
        print(f"{name:<32}{value:>14,.{digits}f}")


if __name__ == "__main__":
    main()
