"""The whole pipeline, one stage after the other: SFT, GRPO with live search, four evaluations, table, report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_collections

from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import load_config, save_config
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.evaluation.table import percent, print_table
from mmsearch_jax.jobs import evaluation as evaluating
from mmsearch_jax.jobs import parts as stages
from mmsearch_jax.jobs import training
from mmsearch_jax.report.page import write_report

EVALUATION_CONFIG = bundled("configs/eval/miniworld.py")
NO_CROP = "grpo_no_crop"


def run(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage in `workdir` and returns what `quickstart.json` holds: summaries, phase times, seed."""
    began = time.monotonic()
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").unlink(missing_ok=True)
    save_config(config, workdir / "config.json")
    seconds: dict[str, float] = {}
    base = config.checkpoint
    with _phase("worlds", seconds):
        for name in (stages.TRAINING_WORLD, stages.EVALUATION_WORLD):
            stages.prepare_world(config, workdir, name)
    with _phase("sft", seconds):
        sft = training.run_sft(config, workdir)
    with _phase("grpo", seconds):
        grpo = training.run_grpo(_from(config, sft), workdir)
    with _phase("evaluation", seconds):
        summaries = [
            _evaluate(config, workdir, base, "direct", mode="direct"),
            _evaluate(config, workdir, base, "rag", mode="rag"),
            _evaluate(config, workdir, str(sft), "sft"),
            _evaluate(config, workdir, str(grpo), "grpo"),
        ]
        ablation = _evaluate(config, workdir, str(grpo), NO_CROP, kinds=("crop",), allow_crop=False)
    seconds["total"] = round(time.monotonic() - began, 1)
    record = {
        "seed": config.seed,
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
    config: ml_collections.ConfigDict,
    workdir: Path,
    checkpoint: str,
    name: str,
    kinds: tuple[str, ...] = (),
    **settings: Any,
) -> dict[str, Any]:
    changed = _from(config, checkpoint)
    with changed.unlocked():
        bundled = load_config(EVALUATION_CONFIG)
        for section in ("eval", "endpoint", "judge", "budget", "base"):
            changed[section] = bundled[section]
        changed.eval.update({"name": name, **settings})
    rows = read_rows(stages.prepare_world(config, workdir, stages.EVALUATION_WORLD) / "eval")
    return evaluating.run_eval(changed, workdir, [row for row in rows if not kinds or row.kind in kinds])


def _from(config: ml_collections.ConfigDict, checkpoint: str | Path) -> ml_collections.ConfigDict:
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.checkpoint = str(checkpoint)
    return changed


@contextmanager
def _phase(name: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - began, 1)
