"""Metrics of a run: metrics.jsonl, TensorBoard events and a progress bar.

It does not depend on the meaning of the numbers.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tqdm
from tensorboardX import SummaryWriter

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.learners.run_folder import METRICS, settings_file, wandb_file


class RunLog:
    """Logs of one phase of a run; a context manager.

    Args:
      workdir: the run's folder; `metrics.jsonl` is appended to, after records of an interrupted run beyond `start` are removed.
      phase: name of the phase ("sft", "grpo", ...), put before every TensorBoard tag.
      num_steps: length of the progress bar.
      start: number of steps made before, in a resumed run; None: nothing is resumed, and no earlier record is kept.
      wandb_project: also logs to Weights & Biases, where a resumed run continues the same run.
      writes: whether this process writes; exactly one process does.
      hyperparameters: plain values, which are written to settings/<phase>.json, and which Weights & Biases shows with the run.

    Raises:
      ConfigError: `wandb_project` is set, but the package is not installed.
    """

    def __init__(
        self,
        workdir: str | Path,
        phase: str,
        num_steps: int,
        start: int | None = None,
        show_progress: bool = True,
        wandb_project: str = "",
        writes: bool = True,
        hyperparameters: Mapping[str, Any] | None = None,
    ):
        folder = Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        self._phase, self._writes = phase, writes
        self._began = time.monotonic()
        self._wandb = None
        if wandb_project and writes:
            self._wandb = _start_wandb(wandb_project, folder, phase, hyperparameters or {})
        self._bar = tqdm.tqdm(
            total=num_steps,
            initial=start or 0,
            desc=phase,
            unit="step",
            disable=not (show_progress and writes),
            dynamic_ncols=True,
        )
        if not writes:
            return
        if hyperparameters:
            _keep_settings(settings_file(folder, phase), hyperparameters)
        _forget_later_steps(folder / METRICS, phase, -1 if start is None else start)
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard" / phase), purge_step=0 if start is None else start + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if not self._writes:
            return
        self._events.close()
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()

    def write(self, step: int, metrics: Mapping[str, Any], shown: tuple[str, ...] = ()) -> None:
        """Records one step's numbers; those named in `shown` are printed after the progress bar."""
        if not self._writes:
            return
        numbers = {name: _plain(value) for name, value in metrics.items()}
        record = {"phase": self._phase, "step": step, "seconds": round(time.monotonic() - self._began, 3), **numbers}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        tagged = {
            f"{self._phase}/{name}": value
            for name, value in numbers.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for tag, value in tagged.items():
            self._events.add_scalar(tag, value, step)
        if self._wandb is not None:
            self._wandb.log({**tagged, f"{self._phase}/step": step})
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


def _forget_later_steps(path: Path, phase: str, start: int) -> None:
    """Removes the phase's records after step `start`, and an incomplete last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("phase") != phase or record.get("step", 0) <= start:
            kept.append(line + "\n")
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)


def _keep_settings(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, sort_keys=True, default=list) + "\n", encoding="utf-8")


def _start_wandb(project: str, folder: Path, phase: str, hyperparameters: Mapping[str, Any]) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("logging to Weights & Biases needs its package: pip install wandb") from error
    kept = wandb_file(folder, phase)
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(secrets.token_hex(4), encoding="utf-8")
    return wandb.init(
        project=project,
        id=kept.read_text(encoding="utf-8"),
        name=f"{folder.name}-{phase}",
        dir=str(folder),
        config=dict(hyperparameters),
        resume="allow",
    )
