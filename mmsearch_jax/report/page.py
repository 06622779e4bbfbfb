"""One self-contained HTML page about a run: the table, the curves, and trajectories with what the policy saw.

Pages and answers are hostile text: the template escapes everything, and the page needs no network and runs no script but
its own filter.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from mmsearch_jax.errors import DataError
from mmsearch_jax.evaluation.table import KIND_NAMES, percent
from mmsearch_jax.report.curves import learning_curves

SAMPLES_PER_KIND = 6
_IMAGE_WIDTH = 448


def write_report(workdir: str | Path, out: str | Path, title: str = "mmsearch-jax run") -> Path:
    """Writes the page about a work folder and returns its path.

    Raises:
      DataError: the folder holds neither metrics nor evaluations.
    """
    workdir, out = Path(workdir), Path(out)
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(workdir.glob("eval/*/summary.json"))]
    metrics = workdir / "metrics.jsonl"
    if not summaries and not metrics.is_file():
        raise DataError(f"nothing to report in {workdir}: it has neither eval/*/summary.json nor metrics.jsonl")
    order = {name: i for i, name in enumerate(("direct", "rag", "sft", "grpo"))}
    summaries.sort(key=lambda summary: (order.get(summary["name"], len(order)), summary["name"]))
    environment = jinja2.Environment(loader=jinja2.PackageLoader("mmsearch_jax.report", "."), autoescape=True)
    environment.filters["percent"] = percent
    samples = [
        sample for summary in summaries for sample in _samples(workdir / "eval" / summary["name"], summary["name"])
    ]
    page = environment.get_template("page.html.jinja").render(
        title=title, summaries=summaries, kinds=KIND_NAMES, curves=learning_curves(metrics), samples=samples,
        evaluations=[summary["name"] for summary in summaries],
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _samples(folder: Path, evaluation: str) -> Iterator[dict[str, Any]]:
    """Some samples of each kind of question, right ones and wrong ones, as the template shows them."""
    path = folder / "samples.jsonl"
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    for kind in KIND_NAMES:
        of_kind = [record for record in records if record["row"]["kind"] == kind]
        wrong = [record for record in of_kind if not record["correct"]][: SAMPLES_PER_KIND // 2]
        right = [record for record in of_kind if record["correct"]][: SAMPLES_PER_KIND - len(wrong)]
        for record in [*right, *wrong]:
            yield _shown(record, evaluation)


def _shown(record: dict[str, Any], evaluation: str) -> dict[str, Any]:
    row, trajectory = record["row"], record["trajectory"]
    picture, (width, height) = _data_url(Path(row["image"]))
    turns = []
    for turn in trajectory["turns"]:
        tool = turn.get("tool") or {}
        box = tool.get("box")
        turns.append({
            "reason": turn["reason"],
            "text": turn["text"],
            "action": turn["action"],
            "tool": tool.get("tool"),
            "query": tool.get("query"),
            "box": _relative(box, width, height) if box else None,
            "results": tool.get("results", []),
            "observation": turn["observation"],
        })  # fmt: skip
    outcome = {True: "right", False: "wrong", None: "failed"}[record["correct"]]
    return {
        "evaluation": evaluation, "kind": row["kind"], "outcome": outcome, "question": row["question"],
        "gold": row["answers"][0], "answer": trajectory["answer"], "status": trajectory["status"], "image": picture,
        "turns": turns, "boxes": [turn["box"] for turn in turns if turn["box"]],
    }  # fmt: skip


def _data_url(path: Path) -> tuple[str, tuple[int, int]]:
    if not path.is_file():
        raise DataError(f"the image {path} of a sample is gone: run the evaluation again")
    image = Image.open(path).convert("RGB")
    size = image.size
    image.thumbnail((_IMAGE_WIDTH, _IMAGE_WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), size


def _relative(box: list[int], width: int, height: int) -> dict[str, str]:
    left, top, right, bottom = box
    shares = {
        "left": left / width, "top": top / height, "width": (right - left) / width, "height": (bottom - top) / height
    }  # fmt: skip
    return {side: f"{100 * share:.2f}" for side, share in shares.items()}
