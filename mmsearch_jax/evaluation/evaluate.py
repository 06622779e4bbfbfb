"""Asks a policy every question of a benchmark by the episode loop that training uses, and writes what came of it.

`eval/<name>/samples.jsonl` grows as episodes end; `summary.json` is written last.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm

from mmsearch_jax.data.schema import Row
from mmsearch_jax.errors import DataError
from mmsearch_jax.evaluation.scoring import Sample, score, summarise
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes_sync
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.trajectory import Trajectory


def evaluate(
    engine: Engine,
    rows: Sequence[Row],
    episode: EpisodeConfig,
    tool_client: ToolClient | None,
    workdir: str | Path,
    name: str,
    *,
    benchmark: str,
    checkpoint: str,
    temperature: float = 0.0,
    seed: int = 0,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Runs the rows once each and returns the summary.

    Args:
      tool_client: closed at the end; may be None in mode "direct".
      name: folder under `workdir`/eval.
      temperature: 0 decodes greedily.

    Raises:
      DataError: there are no rows.
    """
    if not rows:
        raise DataError(f"evaluation '{name}' has no rows: check the benchmark's path and limits")
    by_id = {row.id: row for row in rows}
    if len(by_id) < len(rows):
        raise DataError(f"evaluation '{name}': rows have repeated ids, {len(rows)} rows but {len(by_id)} ids")
    folder = Path(workdir) / "eval" / name
    folder.mkdir(parents=True, exist_ok=True)
    sampling = SamplingParams(temperature=temperature)
    requests = [
        EpisodeRequest(row.id, row.id, row.question, Path(row.image).read_bytes(), seed + i, sampling)
        for i, row in enumerate(rows)
    ]
    right = asked = 0
    with (
        (folder / "samples.jsonl").open("w", encoding="utf-8") as out,
        tqdm.tqdm(total=len(rows), desc=f"eval {name}", unit="question", disable=not show_progress) as bar,
    ):

        def ended(trajectory: Trajectory) -> None:
            nonlocal right, asked
            sample = score(by_id[trajectory.row_id], trajectory)
            out.write(json.dumps(_record(sample), ensure_ascii=False) + "\n")
            out.flush()
            right, asked = right + bool(sample.correct), asked + 1
            bar.set_postfix(accuracy=f"{right / asked:.3f}", refresh=False)
            bar.update()

        trajectories = run_episodes_sync(engine, requests, episode, tool_client, ended)
    samples = [score(by_id[trajectory.row_id], trajectory) for trajectory in trajectories]
    summary = summarise(
        samples, name=name, benchmark=benchmark, mode=episode.mode, checkpoint=checkpoint,
        policy_version=engine.policy_version, seed=seed,
    )  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _record(sample: Sample) -> dict[str, Any]:
    return {
        "correct": sample.correct,
        "row": dataclasses.asdict(sample.row),
        "trajectory": sample.trajectory.to_json(),
    }
