"""Learning curves of a run as inline SVG, drawn by matplotlib from metrics.jsonl."""

from __future__ import annotations

import collections
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

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


def learning_curves(metrics: Path) -> str:
    """An <svg> element with a small plot per metric; empty where there are none."""
    series = _read(metrics)
    shown = [curve for curve in CURVES if len(series.get(curve[:2], [])) > 1]
    if not shown:
        return ""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 3
    rows = -(-len(shown) // columns)
    style: Any = {"font.size": 9, "svg.fonttype": "path", "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(rows, columns, figsize=(10.5, 2.2 * rows), squeeze=False, layout="constrained")
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
        for axis, (phase, metric, title) in zip(axes.flat, shown, strict=False):
            steps, values = np.array(series[(phase, metric)]).T
            axis.plot(steps, values, color="#9db8d9", linewidth=0.9)
            axis.plot(steps, _smooth(values), color="#1f5fa8", linewidth=1.6)
            axis.set_title(title, fontsize=9, loc="left")
            axis.grid(alpha=0.25)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _read(metrics: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    series: dict[tuple[str, str], list[tuple[int, float]]] = collections.defaultdict(list)
    if metrics.is_file():
        with metrics.open(encoding="utf-8") as lines:
            for line in lines:
                record: dict[str, Any] = json.loads(line)
                for name, value in record.items():
                    if isinstance(value, int | float) and np.isfinite(value):
                        series[(record["phase"], name)].append((record["step"], value))
    return series


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a tenth of the curve."""
    width = max(1, len(values) // 10)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
