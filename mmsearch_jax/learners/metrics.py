"""What a run leaves behind as numbers: metrics.jsonl, TensorBoard events, and a progress bar for whoever watches.

It knows nothing of what the numbers mean.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tqdm
from tensorboardX import SummaryWriter


class RunLog:
    """Logs of one phase of a run; a context manager.

    Args:
      workdir: the run's folder; `metrics.jsonl` is appended to, so that a resumed run goes on in it.
      phase: name of the phase ("sft", "grpo", ...), put before every TensorBoard tag.
      num_steps: length of the progress bar.
      start: steps that were made before (a resumed run).
    """

    def __init__(self, workdir: str | Path, phase: str, num_steps: int, start: int = 0, show_progress: bool = True):
        folder = Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        self._phase = phase
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard" / phase))
        self._bar = tqdm.tqdm(
            total=num_steps, initial=start, desc=phase, unit="step", disable=not show_progress, dynamic_ncols=True
        )
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._events.close()
        self._file.close()

    def write(self, step: int, metrics: Mapping[str, Any], shown: tuple[str, ...] = ()) -> None:
        """Records one step's numbers; those named in `shown` stand behind the progress bar."""
        numbers = {name: _plain(value) for name, value in metrics.items()}
        record = {"phase": self._phase, "step": step, "seconds": round(time.monotonic() - self._began, 3), **numbers}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._events.add_scalar(f"{self._phase}/{name}", value, step)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix({name: _short(numbers[name]) for name in shown if name in numbers}, refresh=False)

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        self._bar.write(text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
