"""`mmsearch quickstart`: runs all stages in order: SFT, GRPO with live search, evaluations, table, report.

Each stage continues from its own checkpoint or log, and a finished stage is not repeated, so the same command resumes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from mmsearch_jax.core.config_files import save
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.evaluation.samples import SUMMARY
from mmsearch_jax.jobs.evaluation import run_eval
from mmsearch_jax.jobs.grpo import run_grpo
from mmsearch_jax.jobs.identities import quickstart as depends_on
from mmsearch_jax.jobs.quickstart_summary import print_summary
from mmsearch_jax.jobs.sft import run_sft
from mmsearch_jax.jobs.stages import Stages
from mmsearch_jax.jobs.worlds import EVALUATION_WORLD, TRAINING_WORLD, prepare_world
from mmsearch_jax.report.page import write_report
from mmsearch_jax.settings.commands import EvaluationSettings, PolicySettings, QuickstartSettings
from mmsearch_jax.settings.evaluation import EvalConfig

NO_CROP = "grpo_no_crop"
EVALUATIONS = ("direct", "rag", "sft", "grpo")


def run_quickstart(settings: QuickstartSettings, workdir: Path) -> dict[str, Any]:
    """Runs every stage in `workdir` and returns the content of `quickstart.json`: summaries, phase times, seed.

    Raises:
      ConfigError: `workdir` holds the results of other settings.
    """
    stages = Stages(workdir, depends_on(settings), settings.run.resume)
    save(settings, workdir / "config.json")
    sft, grpo = workdir / "policies" / "sft", workdir / "policies" / "grpo"
    stages.run("worlds", lambda: _prepare_worlds(settings, workdir), workdir / "worlds")
    stages.run("sft", lambda: run_sft(settings, workdir), sft)
    stages.run("grpo", lambda: run_grpo(settings.replace(checkpoint=str(sft)), workdir), grpo)
    stages.run("evaluation", lambda: _evaluate_all(settings, workdir, sft, grpo), workdir / "eval" / NO_CROP / SUMMARY)
    record = {
        "seed": settings.seed,
        "seconds": {**stages.seconds, "total": round(sum(stages.seconds.values()), 1)},
        "summaries": {name: _summary(workdir, name) for name in EVALUATIONS},
        "ablations": {NO_CROP: _summary(workdir, NO_CROP)},
    }
    (workdir / "quickstart.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    report = write_report(workdir, workdir / "report.html", title="mmsearch-jax quickstart")
    rows = read_rows(workdir / "worlds" / EVALUATION_WORLD / "eval")
    example = next((row for row in rows if row.search_required), rows[0])
    print_summary(record, settings, workdir, report, example)
    return record


def _prepare_worlds(settings: QuickstartSettings, workdir: Path) -> None:
    for name in (TRAINING_WORLD, EVALUATION_WORLD):
        prepare_world(settings, workdir, name)


def _evaluate_all(settings: QuickstartSettings, workdir: Path, sft: Path, grpo: Path) -> None:
    _evaluate(settings, workdir, settings.checkpoint, "direct", mode="direct")
    _evaluate(settings, workdir, settings.checkpoint, "rag", mode="rag")
    _evaluate(settings, workdir, str(sft), "sft")
    _evaluate(settings, workdir, str(grpo), "grpo")
    _evaluate(settings, workdir, str(grpo), NO_CROP, kinds=("crop",), allow_crop=False)


def _evaluate(
    settings: QuickstartSettings, workdir: Path, checkpoint: str, name: str, kinds: tuple[str, ...] = (), **changes: Any
) -> None:
    shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(PolicySettings)}
    own = EvaluationSettings(
        **{**shared, "checkpoint": checkpoint, "eval": EvalConfig(name=name, if_changed="replace", **changes)}
    )
    rows = read_rows(prepare_world(settings, workdir, EVALUATION_WORLD) / "eval")
    run_eval(own, workdir, [row for row in rows if not kinds or row.kind in kinds])


def _summary(workdir: Path, name: str) -> dict[str, Any]:
    return json.loads((workdir / "eval" / name / SUMMARY).read_text(encoding="utf-8"))
