"""The quickstart with several seeds: python -m benchmarks.results [--seeds 0 1 2] [--out docs/results.md].

Runs `mmsearch quickstart` once per seed (ten minutes each on two cores) and writes the table of means and single runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from mmsearch_jax.core.command_line import Parser

COLUMNS = {
    "accuracy": lambda s: s["accuracy"],
    "visual": lambda s: s["by_kind"]["visual"]["accuracy"],
    "whole image": lambda s: s["by_kind"]["whole_image"]["accuracy"],
    "crop": lambda s: s["by_kind"]["crop"]["accuracy"],
    "two-hop": lambda s: s["by_kind"]["two_hop"]["accuracy"],
    "search-required": lambda s: s["search_required"]["accuracy"],
    "needless searches": lambda s: s["needless_search_rate"],
}


def main() -> None:
    """Runs the seeds that have no result yet, then writes the page."""
    parser = Parser(description="The quickstart with several seeds, as a table.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workdir", type=Path, default=Path("runs/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    options = parser.parse_args()
    runs = {}
    for seed in options.seeds:
        folder = options.workdir / f"seed{seed}"
        if not (folder / "quickstart.json").is_file():
            command = [
                sys.executable,
                "-m",
                "mmsearch_jax.commands.main",
                "quickstart",
                "--workdir",
                str(folder),
                f"--config.seed={seed}",
            ]
            subprocess.run(command, check=True)
        runs[seed] = json.loads((folder / "quickstart.json").read_text(encoding="utf-8"))
    options.out.write_text(page(runs), encoding="utf-8")
    print(f"wrote {options.out}")


def page(runs: dict[int, dict]) -> str:
    """The Markdown page: per evaluation the mean over seeds with the smallest and largest, then every run."""
    names = list(next(iter(runs.values()))["summaries"])
    count = next(iter(runs.values()))["summaries"][names[0]]["n"]
    seeds = ", ".join(map(str, runs))
    lines = [
        "# Results",
        "",
        f"`make results` (seeds {seeds}; n = {count} questions of the real mini-world each), in percent.",
        "",
        "## Mean over seeds, with the smallest and the largest",
        "",
        *_header(["evaluation"]),
    ]
    for name in names:
        cells = []
        for read in COLUMNS.values():
            values = [100 * read(run["summaries"][name]) for run in runs.values()]
            cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Every run", "", *_header(["evaluation", "seed"])]
    for name in names:
        for seed, run in runs.items():
            cells = [f"{100 * read(run['summaries'][name]):.1f}" for read in COLUMNS.values()]
            lines.append(f"| {name} | {seed} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Crop questions in scenes of 3-4 pictures",
        "",
        "| seed | with crop search | whole-image search only |",
        "|---|---|---|",
    ]
    for seed, run in runs.items():
        allowed = run["summaries"]["grpo"]["crop_3_or_more_entities"]["accuracy"]
        without = run["ablations"]["grpo_no_crop"]["crop_3_or_more_entities"]["accuracy"]
        lines.append(f"| {seed} | {100 * allowed:.1f} | {100 * without:.1f} |")
    phases = list(next(iter(runs.values()))["seconds"])
    lines += ["", "## Seconds by phase", "", f"| seed | {' | '.join(phases)} |", "|" + "---|" * (len(phases) + 1)]
    for seed, run in runs.items():
        lines.append(f"| {seed} | {' | '.join(str(round(run['seconds'][phase])) for phase in phases)} |")
    return "\n".join(lines) + "\n"


def _header(first: list[str]) -> list[str]:
    names = [*first, *COLUMNS]
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


if __name__ == "__main__":
    main()
