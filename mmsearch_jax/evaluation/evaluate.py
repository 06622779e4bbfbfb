"""Asks a policy every question of a benchmark by the episode loop that training uses, and writes what came of it.

`eval/<name>/samples.jsonl` grows as episodes end; `summary.json` is written last. Rows whose image cannot be read are set
aside and named in the summary; episodes that broke through no fault of the policy are counted apart.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm

from mmsearch_jax.data.formats import jsonl
from mmsearch_jax.data.image_processing import load_image
from mmsearch_jax.data.schema import Row, read_image, to_record
from mmsearch_jax.errors import DataError, ImageError, ToolFailed
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
    ready_timeout_s: float = 10.0,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Runs the rows once each and returns the summary.

    Args:
      tool_client: closed at the end; may be None in mode "direct".
      name: folder under `workdir`/eval.
      temperature: 0 decodes greedily.
      ready_timeout_s: how long the search server may take to say that it is ready, before anything is asked.

    Raises:
      DataError: there are no rows, or none whose image can be read.
      ToolUnavailable: no search server answers.
      ToolFailed: every episode broke (the summary and the samples are written all the same).
    """
    if not rows:
        raise DataError(f"evaluation '{name}' has no rows: check the benchmark's path and limits")
    by_id = {row.id: row for row in rows}
    if len(by_id) < len(rows):
        raise DataError(f"evaluation '{name}': rows have repeated ids, {len(rows)} rows but {len(by_id)} ids")
    rows, unreadable = _readable(rows)
    if not rows:
        row_id, why = next(iter(unreadable.items()))
        raise DataError(f"evaluation '{name}': no row has a readable image; {row_id}: {why}")
    if tool_client is not None and episode.mode != "direct":
        asyncio.run(_wait_ready(tool_client, ready_timeout_s))
    folder = Path(workdir) / "eval" / name
    folder.mkdir(parents=True, exist_ok=True)
    sampling = SamplingParams(temperature=temperature)
    requests = [
        EpisodeRequest(row.id, row.id, row.question, read_image(row.image), seed + i, sampling)
        for i, row in enumerate(rows)
    ]
    right = scored = 0
    with (
        (folder / "samples.jsonl").open("w", encoding="utf-8") as out,
        tqdm.tqdm(total=len(rows), desc=f"eval {name}", unit="question", disable=not show_progress) as bar,
    ):

        def ended(trajectory: Trajectory) -> None:
            nonlocal right, scored
            sample = score(by_id[trajectory.row_id], trajectory)
            out.write(jsonl.dumps(_record(sample)) + "\n")
            out.flush()
            right, scored = right + bool(sample.correct), scored + (sample.correct is not None)
            bar.set_postfix(accuracy=f"{right / max(scored, 1):.3f}", refresh=False)
            bar.update()

        trajectories = run_episodes_sync(engine, requests, episode, tool_client, ended)
    samples = [score(by_id[trajectory.row_id], trajectory) for trajectory in trajectories]
    summary = summarise(
        samples, name=name, benchmark=benchmark, mode=episode.mode, checkpoint=checkpoint,
        policy_version=engine.policy_version, seed=seed, unreadable_rows=unreadable,
    )  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if not summary["n"]:
        raise ToolFailed(f"evaluation '{name}': every episode broke; the first: {trajectories[0].error}")
    return summary


def _readable(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows whose image can be read, and why each other one cannot."""
    readable, unreadable = [], {}
    for row in rows:
        try:
            load_image(row.image)
        except ImageError as error:
            unreadable[row.id] = str(error)
        else:
            readable.append(row)
    return readable, unreadable


async def _wait_ready(tool_client: ToolClient, timeout_s: float) -> None:
    try:
        await tool_client.wait_ready(timeout_s)
    finally:
        await tool_client.close()


def _record(sample: Sample) -> dict[str, Any]:
    return {
        "correct": sample.correct,
        "row": to_record(sample.row),
        "trajectory": sample.trajectory.to_json(),
    }
