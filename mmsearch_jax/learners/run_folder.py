"""What a run keeps in its work directory, and how the state of an earlier run is moved aside when a run starts anew."""

from __future__ import annotations

import json
from pathlib import Path

METRICS = "metrics.jsonl"
CHECKPOINTS, TENSORBOARD, POLICIES, ROLLOUTS, WANDB = "checkpoints", "tensorboard", "policies", "rollouts", "wandb_ids"
SETTINGS = "settings"


def earlier_state(workdir: Path, phase: str) -> list[Path]:
    """The files and folders that only this phase of a run writes, as far as they exist.

    Nothing of them may be mixed with another run: checkpoints would be resumed, a policy or rollouts taken for the new ones.
    """
    own = [workdir / CHECKPOINTS / phase, workdir / TENSORBOARD / phase, workdir / POLICIES / phase]
    own += [wandb_file(workdir, phase), settings_file(workdir, phase)]
    if phase == "grpo":
        own.append(workdir / ROLLOUTS)
    return [path for path in own if path.is_file() or (path.is_dir() and any(path.iterdir()))]


def set_aside(workdir: Path, phase: str) -> list[Path]:
    """Renames what an earlier run of this phase left ("sft" becomes "sft.before-1"); returns the new paths.

    The metrics of the phase are copied to `metrics.before-1.jsonl`, whose name all moved state shares.
    """
    found, metrics = earlier_state(workdir, phase), workdir / METRICS
    lines = _lines_of(metrics, phase)
    if not found and not lines:
        return []
    number = 1
    while any(_aside(path, number).exists() for path in (*found, metrics)):
        number += 1
    moved = []
    if lines:
        moved.append(_aside(metrics, number))
        moved[0].write_text("".join(lines), encoding="utf-8")
    # Checkpoints first: after a kill in between, the earlier run can no longer be resumed by mistake.
    for path in found:
        moved.append(path.rename(_aside(path, number)))
    return moved


def wandb_file(workdir: Path, phase: str) -> Path:
    """The file with the id of the phase's run at Weights & Biases."""
    return workdir / WANDB / phase


def settings_file(workdir: Path, phase: str) -> Path:
    """The file with all settings of the phase's newest start, as plain values."""
    return workdir / SETTINGS / f"{phase}.json"


def _aside(path: Path, number: int) -> Path:
    # A file keeps its ending, a folder's name may contain dots.
    stem, ending = (path.stem, path.suffix) if path.name == METRICS else (path.name, "")
    return path.with_name(f"{stem}.before-{number}{ending}")


def _lines_of(metrics: Path, phase: str) -> list[str]:
    if not metrics.is_file():
        return []
    kept = []
    for line in metrics.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line).get("phase") == phase:
                kept.append(line)
        except ValueError:
            continue  # An incomplete last line, left by a kill.
    return kept
