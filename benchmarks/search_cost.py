"""The cost of GRPO's searches at each provider's list price, from the calls of a run's episodes.

    python -m benchmarks.search_cost runs/quickstart [--json FILE]

Reads the trajectories in WORKDIR/rollouts. "Paid" excludes calls that the server's cache answers: the same query, or the same
part of the same image, earlier in the run (the rollouts of a group often send the same queries).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.trajectory import Trajectory, read_jsonl
from tools_server.backends.providers import IMAGE, TEXT

EPISODES = 1000


@dataclasses.dataclass(frozen=True)
class Calls:
    """Calls of one kind per 1,000 episodes: all, and those paid for if every answer is cached."""

    made: float
    paid: float


def count_calls(trajectories: Iterable[Trajectory]) -> tuple[int, dict[str, Calls]]:
    """The number of episodes, and the calls by tool ("text_search", "image_search")."""
    episodes, made, distinct = 0, {"text_search": 0, "image_search": 0}, {"text_search": set(), "image_search": set()}
    for trajectory in trajectories:
        episodes += 1
        for call in trajectory.tool_calls():
            made[call.tool] += 1
            image = trajectory.row_id if call.tool == "image_search" else ""
            distinct[call.tool].add((image, call.query))
    scale = EPISODES / max(episodes, 1)
    return episodes, {tool: Calls(made[tool] * scale, len(distinct[tool]) * scale) for tool in made}


def main() -> None:
    """Counts and prints."""
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workdir", type=Path, help="work folder of a GRPO run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the calls there, too")
    options = parser.parse_args()
    files = sorted((options.workdir / "rollouts").glob("*.jsonl"))
    if not files:
        sys.exit(f"no trajectories in {options.workdir / 'rollouts'}: name the work folder of a GRPO run")
    episodes, calls = count_calls(trajectory for file in files for trajectory in read_jsonl(file))
    table = Table(title=f"{EPISODES:,} episodes, from {episodes} of {options.workdir}", box=None)
    for head in ("provider", "$ a call", "calls", "$ without cache", "paid calls", "$ with cache"):
        table.add_column(head, justify="left" if head == "provider" else "right")
    for tool, providers in (("text_search", TEXT), ("image_search", IMAGE)):
        for name, provider in providers.items():
            of = calls[tool]
            table.add_row(
                name,
                f"{provider.cost_usd:.4f}",
                f"{of.made:.0f}",
                f"{of.made * provider.cost_usd:.2f}",
                f"{of.paid:.0f}",
                f"{of.paid * provider.cost_usd:.2f}",
            )
    Console().print(table)
    if options.json is not None:
        rows = {tool: dataclasses.asdict(of) for tool, of in calls.items()}
        options.json.write_text(json.dumps({"episodes": episodes, **rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
