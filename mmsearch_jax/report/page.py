"""One self-contained HTML page about runs: tables, comparison, tool use, curves, and every trajectory with its pages.

Pages and answers are hostile text. The template escapes everything. The episodes are data that the page's own script
shows only by `textContent`. No other script runs, because the page's security policy requires this script's nonce.
"""

from __future__ import annotations

import collections
import secrets
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.evaluation.terminal_tables import KIND_NAMES, percent
from mmsearch_jax.report.curves import learning_curves
from mmsearch_jax.report.names import meanings
from mmsearch_jax.report.pairs import Pair, pairs
from mmsearch_jax.report.runs import RunEvaluation, find_evaluations, main_place, parsed, run_labels
from mmsearch_jax.report.tool_use import PARTS, ToolUse, tool_use
from mmsearch_jax.report.viewer_data import PageBudget, ViewerData, collect

_SCRIPTS = ("viewer.js", "tokens.js", "browser.js")


def write_report(
    workdirs: str | Path | Sequence[str | Path],
    out: str | Path,
    title: str = "mmsearch-jax run",
    budget: PageBudget | None = None,
) -> Path:
    """Writes the page about one or several work directories and returns its path.

    Raises:
      DataError: a directory holds neither metrics nor evaluations, or one of its files is damaged.
    """
    folders = [Path(each) for each in ([workdirs] if isinstance(workdirs, str | Path) else workdirs)]
    evaluations, out = find_evaluations(folders), Path(out)
    for folder in folders:
        if not (folder / "metrics.jsonl").is_file() and not any(e.folder.is_relative_to(folder) for e in evaluations):
            raise DataError(f"nothing to report in {folder}: it has neither eval/**/summary.json nor metrics.jsonl")
    labels, groups = run_labels(folders), _by_benchmark(evaluations)
    data = collect(evaluations, budget or PageBudget())
    environment = jinja2.Environment(loader=jinja2.PackageLoader("mmsearch_jax.report", "."), autoescape=True)
    environment.filters["percent"] = percent
    page = environment.get_template("page.html.jinja").render(
        title=title,
        facts=_facts(folders, evaluations),
        benchmarks=_tables(groups),
        kinds=KIND_NAMES,
        meanings=meanings(evaluations),
        matrix=_matrix(evaluations),
        pairs=_pairs(evaluations, data),
        parts=PARTS,
        bars=_bars(evaluations, data, several=len(groups) > 1),
        curves=learning_curves({label: f / "metrics.jsonl" for label, f in zip(labels, folders, strict=True)}),
        data=data,
        css=_own("page.css"),
        script=markupsafe.Markup("\n").join(map(_own, _SCRIPTS)),
        nonce=secrets.token_hex(16),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _own(name: str) -> markupsafe.Markup:
    """A file of this package, inserted without escaping."""
    return markupsafe.Markup(resources.files("mmsearch_jax.report").joinpath(name).read_text(encoding="utf-8"))


def _by_benchmark(evaluations: Sequence[RunEvaluation]) -> dict[str, list[RunEvaluation]]:
    groups: dict[str, list[RunEvaluation]] = collections.defaultdict(list)
    for evaluation in evaluations:
        groups[evaluation.benchmark].append(evaluation)
    return groups


def _tables(groups: Mapping[str, Sequence[RunEvaluation]]) -> list[dict[str, Any]]:
    """One table per benchmark: its evaluations, and its kinds of questions."""
    return [
        {
            "name": name,
            "evaluations": [{"label": e.label, **e.summary} for e in group],
            "kinds": [k for k in KIND_NAMES if any(e.summary["by_kind"].get(k, {}).get("n") for e in group)],
            "detailed": any(e.summary.get("tool_use") for e in group),
            "judged": any(e.summary.get("judge") for e in group),
        }
        for name, group in groups.items()
    ]


def _matrix(evaluations: Sequence[RunEvaluation]) -> dict[str, Any] | None:
    """The table of evaluations and benchmarks, as in the paper; None if there is only one benchmark."""
    benchmarks = list(dict.fromkeys(e.benchmark for e in evaluations))
    if len(benchmarks) < 2:
        return None
    rows: dict[str, dict[str, Any]] = collections.defaultdict(dict)
    for evaluation in evaluations:
        rows[evaluation.label][evaluation.benchmark] = evaluation.summary
    averages = {
        label: sum(s["accuracy"] for s in row.values()) / len(row) if len(row) == len(benchmarks) else None
        for label, row in rows.items()
    }
    return {"benchmarks": benchmarks, "rows": rows, "averages": averages}


def _pairs(evaluations: Sequence[RunEvaluation], data: ViewerData) -> list[tuple[str, Pair]]:
    made = []
    for benchmark, group in _by_benchmark(evaluations).items():
        samples = [(each.label, data.scored[evaluations.index(each)]) for each in group]
        made += [(benchmark, pair) for pair in pairs(samples, main_place(group))]
    return made


def _bars(evaluations: Sequence[RunEvaluation], data: ViewerData, several: bool) -> dict[str, list[ToolUse]]:
    """The plots of each benchmark: all questions, those that need a search, and those that do not."""
    plots: dict[str, list[ToolUse]] = collections.defaultdict(list)
    for evaluation, episodes in zip(evaluations, data.tools, strict=True):
        for group, wanted in (
            ("all questions", None),
            ("questions that need a search", True),
            ("questions that need no search", False),
        ):
            bar = tool_use(evaluation.label, [each for each, needs in episodes if wanted is None or needs is wanted])
            if bar is not None and evaluation.summary.get("mode") != "direct":
                plots[f"{evaluation.benchmark}: {group}" if several else group].append(bar)
    return plots


def _facts(folders: Sequence[Path], evaluations: Sequence[RunEvaluation]) -> list[str]:
    """The line under the title: number of questions, seeds, and the duration of the quickstart's phases."""
    facts = []
    if evaluations:
        facts.append(f"{max(e.summary['n'] for e in evaluations)} questions")
        seeds = sorted({e.summary["seed"] for e in evaluations if "seed" in e.summary})
        facts += [f"seed {', '.join(map(str, seeds))}"] if seeds else []
    path = folders[0] / "quickstart.json"
    if path.is_file() and len(folders) == 1:
        seconds = parsed(path.read_text(encoding="utf-8"), path).get("seconds", {})
        facts += [f"{phase} {value:.0f} s" for phase, value in seconds.items()]
    return facts
