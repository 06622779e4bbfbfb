"""A simulation of GRPO with live search from 16 to 4,096 chips: the bottleneck, and the gain of each remedy.

python -m benchmarks.scale_sim [--quick] [--plan plan.json] [--delays delays.json] [--json FILE] [--markdown FILE]

Not a measurement: device times come from `mmsearch plan` (--plan: its JSON for a GRPO config) or are the printed defaults.
Delays are log-normal or drawn from measured ones (--delays: {"search": [seconds, ...], "summary": [...], "judge": [...]}).
The number of prompts grows with the hosts (13 each); that of search providers and servers grows only in the remedies.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.episode_simulation import Delay, Scenario, Simulation, Step, mean_steps
from benchmarks.table import Measured, report
from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.config_files import load
from mmsearch_jax.settings.commands import GRPOSettings

CHIPS_PER_HOST, PROMPTS_PER_HOST = 4, 13
SIZES, QUICK_SIZES = (16, 64, 256, 1024, 4096), (16, 256)
# A 7B with LoRA on v5p: 3,000 tokens of a trajectory, one backward and two forward passes, at 40 % of the peak.
LEARN_CHIP_SECONDS = 1.0
SHOWN = ("device", "slots", "search", "quota", "server", "summariser", "judge", "learner")


def scenario(chips: int, times: Mapping[str, float], delays: Mapping[str, Sequence[float]]) -> Scenario:
    """A pod with this number of chips and the providers and servers of one host's run.

    Args:
      times: `learn_chip_seconds` of a trajectory; `decode_seconds`, `extend_seconds` as in `Scenario`.
      delays: measured seconds by name.
    """
    hosts = chips // CHIPS_PER_HOST
    plain = Scenario(hosts, 64, PROMPTS_PER_HOST * hosts, 0.0)
    trajectories = plain.prompts * plain.group_size
    return dataclasses.replace(
        plain,
        learn_seconds=times["learn_chip_seconds"] * trajectories / chips,
        decode_seconds=times["decode_seconds"],
        extend_seconds=times["extend_seconds"],
        **{name: dataclasses.replace(getattr(plain, name), measured=tuple(drawn)) for name, drawn in delays.items()},
    )


def remedies(base: Scenario) -> dict[str, Scenario]:
    """One change each; then all services grow with the hosts (they suffice for 64 chips), alone and with the other changes."""
    changes: dict[str, dict[str, Any]] = {
        "search quota x 10": {"quota": 10 * base.quota},
        "tools server replicas x 4": {"replicas": 4 * base.replicas},
        "summariser x 4": {"summarisers": 4 * base.summarisers},
        "judge x 4": {"judges": 4 * base.judges},
        "oversample 2": {"oversample": 2},
        "overlap (one step off)": {"overlap": True},
    }
    factor = max(1, base.hosts * CHIPS_PER_HOST // 64)
    wide = {key: factor * getattr(base, key) for key in ("quota", "replicas", "summarisers", "judges")}
    together = {
        f"all services x {factor}": wide,
        "the same, oversample 2": wide | {"oversample": 2},
        "the same, overlap": wide | {"overlap": True},
        "the same, both": wide | {"oversample": 2, "overlap": True},
    }
    return {name: dataclasses.replace(base, **change) for name, change in {**changes, **together}.items()}


def main() -> None:
    """Simulates, prints both tables, and checks the invariants of the simulation."""
    parser = Parser(description="Simulated GRPO steps on up to 4,096 chips.")
    parser.add_argument("--quick", action="store_true", help="up to 256 chips")
    parser.add_argument(
        "--plan", type=Path, metavar="FILE", help="JSON that mmsearch plan --json wrote for a GRPO config"
    )
    parser.add_argument(
        "--delays", type=Path, metavar="FILE", help='measured seconds: {"search": [...], "summary": [...]}'
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    options = parser.parse_args()
    times = planned(json.loads(options.plan.read_text())) if options.plan else default_times()
    delays = json.loads(options.delays.read_text()) if options.delays else {}
    unknown = set(delays) - {"search", "summary", "judge"}
    if unknown:
        parser.error(f"--delays names {', '.join(sorted(unknown))}: known are search, summary, judge")
    # Otherwise the collector scans a hundred thousand live episodes again and again.
    gc.disable()
    began, events = time.perf_counter(), 0
    sizes = QUICK_SIZES if options.quick else SIZES
    grown: dict[str, list[Step]] = {}
    for chips in sizes:
        simulation = Simulation(scenario(chips, times, delays))
        # The slowest of few episodes differs from step to step.
        grown[f"{chips:,} chips"] = simulation.run(max(1, 1024 // chips))
        events += simulation.events
    base = scenario(sizes[-1], times, delays)
    name = f"{sizes[-1]:,} chips"
    mended: dict[str, list[Step]] = {"as it is": grown[name]}
    for remedy, changed in remedies(base).items():
        simulation = Simulation(changed)
        # The first step of a run has nothing to overlap with.
        mended[remedy] = simulation.run(2)[1:] if changed.overlap else simulation.run(1)
        events += simulation.events
    seconds = time.perf_counter() - began
    text = "\n".join(
        [
            given(base, times),
            "",
            "The same providers and servers, more chips:",
            "",
            table(grown),
            "",
            f"{name}, {mended['as it is'][0].at_once:,} episodes at once, with:",
            "",
            table(mended, mended["as it is"]),
        ]
    )
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    report(checks(mended, base, events / seconds), options.json)


def default_times() -> dict[str, float]:
    """The default times, for use without a plan."""
    defaults = {field.name: field.default for field in dataclasses.fields(Scenario)}
    return {"learn_chip_seconds": LEARN_CHIP_SECONDS} | {
        key: float(defaults[key]) for key in ("decode_seconds", "extend_seconds")
    }


def planned(plan: Mapping[str, Any]) -> dict[str, float]:
    """Times from `mmsearch plan --json`: its estimates, which are lower bounds.

    Raises:
      SystemExit: it is not the plan of a GRPO config whose programs all fit.
    """
    stages = {stage["stage"]: stage for stage in plan.get("stages", ())}
    programs = {program["program"]: program for program in plan.get("plans", ())}
    config = load(GRPOSettings, plan["config"]).settings
    try:
        trajectories, chips = config.grpo.prompts_per_step * config.grpo.group_size, plan["plans"][0]["chips"]
        return {
            "learn_chip_seconds": stages["grpo"]["learn_seconds"] * chips / trajectories,
            # One call decodes this number of tokens in every slot.
            "decode_seconds": programs["decode"]["estimate"]["seconds"] / config.engine.decode_steps,
            "extend_seconds": programs["extend"]["estimate"]["seconds"],
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise SystemExit(
            f"the plan has no {error}: give the --json of mmsearch plan for a GRPO config that fits"
        ) from error


def given(base: Scenario, times: Mapping[str, float]) -> str:
    """The assumptions, in a line or two."""
    return (
        f"Assumed: {times['learn_chip_seconds']:.2f} chip-seconds of learning a trajectory, "
        f"{1e3 * base.decode_seconds:.1f} ms a decode step, {1e3 * base.extend_seconds:.0f} ms an observation, "
        f"turns of {base.turn_tokens:.0f} tokens (median), a "
        f"search after {base.calls_on:.0%} of the turns; {base.slots} slots a host; {base.quota:.0f} searches/s, "
        f"search {_delay(base.search)}, {base.replicas} tools servers of {base.server_cpus} CPUs "
        f"({1e3 * base.server_seconds:.0f} ms a call), {base.summarisers} summaries at once ({_delay(base.summary)}), "
        f"{base.judges} judgements ({_delay(base.judge)})."
    )


def _delay(delay: Delay) -> str:
    if delay.measured:
        return f"{len(delay.measured)} measured delays"
    return f"{delay.median:.1f} s (median, log-normal, sigma {delay.sigma:.1f})"


def table(runs: Mapping[str, Sequence[Step]], against: Sequence[Step] | None = None) -> str:
    """One row per run: seconds of a step, trajectories per second, and where the slowest episode and the learner spent the
    time."""
    head = ["", "step, s", "trajectories/s", "searches/s", *(f"{part}, s" for part in SHOWN), "bottleneck"]
    if against is not None:
        head.insert(2, "speed")
        before = mean_steps(against)[0]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, steps in runs.items():
        seconds, parts = mean_steps(steps)
        count, calls = sum(step.episodes for step in steps), sum(step.calls for step in steps)
        row = [name, f"{seconds:.0f}", f"{count / seconds / len(steps):.1f}", f"{calls / seconds / len(steps):.0f}"]
        if against is not None:
            row.insert(2, f"{before / seconds:.2f}x")
        row += [f"{parts[part]:.0f}" for part in SHOWN]
        lines.append("| " + " | ".join([*row, max(SHOWN, key=lambda part: parts[part])]) + " |")
    return "\n".join(lines)


def checks(mended: Mapping[str, Sequence[Step]], base: Scenario, events_per_second: float) -> dict[str, Measured]:
    """The invariants of any such simulation, and its speed."""
    step = mended["as it is"][-1]
    (best, _), (plain, parts) = mean_steps(mended["the same, both"]), mean_steps(mended["as it is"])
    rate = step.calls / step.rollout_seconds
    total = sum(parts.values())
    sampled = mean_steps(mended["oversample 2"])[0] / plain
    return {
        "searches/s over the quota": Measured(rate / base.quota, "x", "at most 1", rate <= 1.001 * base.quota),
        "parts of the slowest episode over the step": Measured(total / plain, "x", "1", abs(total / plain - 1) < 1e-3),
        "all remedies against none, speed": Measured(plain / best, "x", "above 1", plain > best),
        "oversample 2 alone, step time": Measured(sampled, "x", "", True),
        "events simulated a second": Measured(events_per_second / 1e3, "k", "", True),
    }


if __name__ == "__main__":
    main()
