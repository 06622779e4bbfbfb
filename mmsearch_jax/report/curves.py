"""Learning curves of a run as inline SVG, drawn by matplotlib from metrics.jsonl."""

from __future__ import annotations

import collections
import dataclasses
import html
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from mmsearch_jax.core.errors import DataError

# (phase, metric, title, unit); curves without data are left out.
CURVES = (
    ("pretrain", "target_nll", "pretraining: loss of answers", "nats per token"),
    ("sft", "target_nll", "SFT: loss of the policy's tokens", "nats per token"),
    ("grpo", "accuracy", "GRPO: accuracy of rollouts", "share"),
    ("grpo", "eval_accuracy", "GRPO: accuracy on held-out rows", "share"),
    ("grpo", "eval_search_rate", "GRPO: share of held-out rows with a search", "share"),
    ("grpo", "reward", "GRPO: reward", "mean reward"),
    ("grpo", "searches", "GRPO: searches per episode", "searches"),
    ("grpo", "needless_searches", "GRPO: needless searches", "share"),
    ("grpo", "entropy", "GRPO: entropy", "nats per token"),
    ("grpo", "kl", "GRPO: KL to the SFT policy", "nats per token"),
    ("grpo", "rollout_learner_kl", "GRPO: KL between sampler and learner", "nats per token"),
)
_COLOURS = ("#1f5fa8", "#c2185b", "#5e8c4a", "#e08a00", "#6a4fb3", "#4a6572")
_STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "mmsearch",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.limits": (-3, 5),
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One plot: its title and its <svg> element."""

    title: str
    svg: str


def learning_curves(metrics: Mapping[str, Path]) -> list[Curve]:
    """One plot per metric that has at least two values in some run; empty if there are no metrics.

    Args:
      metrics: the metrics file of each run, by the run's name.

    Raises:
      DataError: a line of a file is not a JSON object; the message names file and line.
    """
    runs = {name: _read(path) for name, path in metrics.items()}
    matplotlib.use("Agg")
    made = []
    for phase, metric, title, unit in CURVES:
        lines = {
            name: series[phase, metric] for name, series in runs.items() if len(series.get((phase, metric), ())) > 1
        }
        if lines:
            made.append(Curve(title, _named(_plot(lines, unit), _in_words(title, lines))))
    return made


def _in_words(title: str, lines: Mapping[str, list[tuple[int, float]]]) -> str:
    """The text alternative of a plot: where each smoothed curve begins and ends."""
    parts = []
    for name, points in lines.items():
        steps, values = np.array(points).T
        smooth = _smooth(values)
        who = f"{name}, " if len(lines) > 1 else ""
        parts.append(f"{who}{smooth[0]:.3g} at step {steps[0]:.0f}, {smooth[-1]:.3g} at step {steps[-1]:.0f}")
    return f"{title}: {'; '.join(parts)}"


def _named(svg: str, words: str) -> str:
    """The <svg> as one image with a text alternative."""
    start, rest = svg.split(">", 1)
    return f'{start} role="img"><title>{html.escape(words)}</title>{rest}'


def _plot(lines: Mapping[str, list[tuple[int, float]]], unit: str) -> str:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure, axis = pyplot.subplots(figsize=(3.5, 2.1), layout="constrained")
        for (name, points), colour in zip(lines.items(), itertools.cycle(_COLOURS)):
            steps, values = np.array(points).T
            axis.plot(steps, values, color=colour, linewidth=0.9, alpha=0.4)
            axis.plot(steps, _smooth(values), color=colour, linewidth=1.6, label=name)
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_xlabel("step")
        axis.set_ylabel(unit)
        axis.grid(alpha=0.25)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _read(metrics: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    series: dict[tuple[str, str], list[tuple[int, float]]] = collections.defaultdict(list)
    if not metrics.is_file():
        return series
    with metrics.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record: dict[str, Any] = json.loads(line)
                phase, step = record["phase"], record["step"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(f"{metrics}, line {number}: not a step's metrics ({error}); remove the line") from error
            for name, value in record.items():
                if isinstance(value, int | float) and np.isfinite(value):
                    series[(phase, name)].append((step, value))
    return series


def _smooth(values: np.ndarray) -> np.ndarray:
    """The running mean over a tenth of the curve."""
    width = max(1, len(values) // 10)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
