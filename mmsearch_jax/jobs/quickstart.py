"""`mmsearch quickstart`: runs all stages in order: SFT, GRPO with live search, evaluations, table, report."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsearch_jax.core.config_files import save
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.evaluation.table import percent, print_table
from mmsearch_jax.jobs.evaluation import run_eval
from mmsearch_jax.jobs.grpo import run_grpo
from mmsearch_jax.jobs.sft import run_sft
from mmsearch_jax.jobs.worlds import EVALUATION_WORLD, TRAINING_WORLD, prepare_world
from mmsearch_jax.report.page import write_report
from mmsearch_jax.settings.commands import EvaluationSettings, PolicySettings, QuickstartSettings
from mmsearch_jax.settings.evaluation import EvalConfig

NO_CROP = "grpo_no_crop"


def run_quickstart(settings: QuickstartSettings, workdir: Path) -> dict[str, Any]:
    """Runs every stage in `workdir` and returns the content of `quickstart.json`: summaries, phase times, seed."""
    began = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").unlink(missing_ok=True)
    save(settings, workdir / "config.json")
    seconds: dict[str, float] = {}
    base = settings.checkpoint
    with _phase("worlds", seconds):
        for name in (TRAINING_WORLD, EVALUATION_WORLD):
            prepare_world(settings, workdir, name)
    with _phase("sft", seconds):
        sft = str(run_sft(settings, workdir))
    with _phase("grpo", seconds):
        grpo = str(run_grpo(settings.replace(checkpoint=sft), workdir))
    with _phase("evaluation", seconds):
        summaries = [
            _evaluate(settings, workdir, base, "direct", mode="direct"),
            _evaluate(settings, workdir, base, "rag", mode="rag"),
            _evaluate(settings, workdir, sft, "sft"),
            _evaluate(settings, workdir, grpo, "grpo"),
        ]
        ablation = _evaluate(settings, workdir, grpo, NO_CROP, kinds=("crop",), allow_crop=False)
    seconds["total"] = round(time.monotonic() - began, 1)
    record = {
        "seed": settings.seed,
        "seconds": seconds,
        "summaries": {summary["name"]: summary for summary in summaries},
        "ablations": {NO_CROP: ablation},
    }
    (workdir / "quickstart.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    report = write_report(workdir, workdir / "report.html", title="mmsearch-jax quickstart")
    print_table(summaries)
    crop, whole = summaries[-1]["crop_3_or_more_entities"], ablation["crop_3_or_more_entities"]
    print(
        f"Crop questions in scenes of 3-4 pictures (n = {crop['n']}): {percent(crop['accuracy'])} % with crop search, "
        f"{percent(whole['accuracy'])} % with whole-image search only."
    )
    print(f"Seconds by phase: {seconds}\nReport: {report}")
    return record


def _evaluate(
    settings: QuickstartSettings, workdir: Path, checkpoint: str, name: str, kinds: tuple[str, ...] = (), **changes: Any
) -> dict[str, Any]:
    shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(PolicySettings)}
    own = EvaluationSettings(
        **{**shared, "checkpoint": checkpoint, "eval": EvalConfig(name=name, if_changed="replace", **changes)}
    )
    rows = read_rows(prepare_world(settings, workdir, EVALUATION_WORLD) / "eval")
    return run_eval(own, workdir, [row for row in rows if not kinds or row.kind in kinds])


@contextmanager
def _phase(name: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - began, 1)
