"""Learning curves of a run as inline SVG, drawn by matplotlib from metrics.jsonl."""

from __future__ import annotations

import collections
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from mmsearch_jax.errors import DataError

# (phase, metric, title); curves without data are left out.
CURVES = (
    ("pretrain", "target_nll", "pretraining: loss of answers"),
    ("sft", "target_nll", "SFT: loss of the policy's tokens"),
    ("grpo", "accuracy", "GRPO: accuracy of rollouts"),
    ("grpo", "reward", "GRPO: reward"),
    ("grpo", "searches", "GRPO: searches per episode"),
    ("grpo", "needless_searches", "GRPO: needless searches"),
    ("grpo", "entropy", "GRPO: entropy (nats)"),
    ("grpo", "kl", "GRPO: KL to the SFT policy"),
    ("grpo", "rollout_learner_kl", "GRPO: sampler against learner"),
)
_STYLE: Any = {
    "font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "mmsearch", "axes.spines.top": False,
    "axes.spines.right": False, "axes.formatter.limits": (-3, 5),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Curve:
    """One plot: its title and its <svg> element."""

    title: str
    svg: str


def learning_curves(metrics: Path) -> list[Curve]:
    """One plot per metric that has at least two values; empty where there are no metrics.

    Raises:
      DataError: a line of the file is not a JSON object; names file and line.
    """
    series = _read(metrics)
    shown = [curve for curve in CURVES if len(series.get(curve[:2], [])) > 1]
    if not shown:
        return []
    matplotlib.use("Agg")
    return [Curve(title, _plot(series[(phase, metric)])) for phase, metric, title in shown]


def _plot(points: list[tuple[int, float]]) -> str:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    steps, values = np.array(points).T
    with matplotlib.rc_context(_STYLE):
        figure, axis = pyplot.subplots(figsize=(3.5, 1.9), layout="constrained")
        axis.plot(steps, values, color="#9db8d9", linewidth=0.9)
        axis.plot(steps, _smooth(values), color="#1f5fa8", linewidth=1.6)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
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
    """Running mean over a tenth of the curve."""
    width = max(1, len(values) // 10)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
