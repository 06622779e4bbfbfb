"""One self-contained HTML page about a run: the table, the curves, and trajectories with what the policy saw.

Pages and answers are hostile text: the template escapes everything, and the page needs no network and runs no script but
its own filter, which alone carries the nonce that the page's security policy asks for.
"""

from __future__ import annotations

import base64
import io
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from mmsearch_jax.data.image_processing import load_image
from mmsearch_jax.errors import DataError, ImageError
from mmsearch_jax.evaluation.table import KIND_NAMES, percent
from mmsearch_jax.report.curves import learning_curves

SAMPLES_PER_KIND = 6
SHOWN_KINDS = ("crop", "two_hop", "whole_image", "visual")
"""The order of the trajectories: those that tell most come first."""
_IMAGE_WIDTH = 448


def write_report(workdir: str | Path, out: str | Path, title: str = "mmsearch-jax run") -> Path:
    """Writes the page about a work folder and returns its path.

    Raises:
      DataError: the folder holds neither metrics nor evaluations, or one of its files is damaged.
    """
    workdir, out = Path(workdir), Path(out)
    summaries = [_json(path.read_text(encoding="utf-8"), path) for path in sorted(workdir.glob("eval/*/summary.json"))]
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
        evaluations=[summary["name"] for summary in summaries], facts=_facts(workdir, summaries),
        nonce=secrets.token_hex(16),
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
        records = [_json(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    for kind in SHOWN_KINDS:
        of_kind = [record for record in records if record["row"]["kind"] == kind]
        wrong = [record for record in of_kind if not record["correct"]][: SAMPLES_PER_KIND // 2]
        right = [record for record in of_kind if record["correct"]][: SAMPLES_PER_KIND - len(wrong)]
        for record in [*right, *wrong]:
            yield _shown(record, evaluation)


def _shown(record: dict[str, Any], evaluation: str) -> dict[str, Any]:
    row, trajectory = record["row"], record["trajectory"]
    picture, (width, height) = _data_url(row["image"])
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
            "how": _how(tool) if tool else "",
            "note": tool.get("note"),
            "error": tool.get("error"),
            "elapsed_ms": tool.get("elapsed_ms"),
            "box": _relative(box, width, height) if box and picture else None,
            "results": tool.get("results", []),
            "observation": turn["observation"],
        })  # fmt: skip
    outcome = {True: "right", False: "wrong", None: "failed"}[record["correct"]]
    return {
        "evaluation": evaluation, "kind": row["kind"], "outcome": outcome, "question": row["question"],
        "gold": row["answers"][0], "answer": trajectory["answer"], "status": trajectory["status"], "image": picture,
        "error": trajectory.get("error"), "turns": turns, "boxes": [turn["box"] for turn in turns if turn["box"]],
    }  # fmt: skip


def _facts(workdir: Path, summaries: list[dict[str, Any]]) -> list[str]:
    """What stands under the title: questions, seeds, and how long the quickstart took."""
    facts = []
    if summaries:
        facts.append(f"{max(summary['n'] for summary in summaries)} questions")
        seeds = sorted({summary["seed"] for summary in summaries if "seed" in summary})
        facts += [f"seed {', '.join(map(str, seeds))}"] if seeds else []
    path = workdir / "quickstart.json"
    if path.is_file():
        seconds = _json(path.read_text(encoding="utf-8"), path).get("seconds", {})
        facts += [f"{phase} {value:.0f} s" for phase, value in seconds.items()]
    return facts


def _how(tool: dict[str, Any]) -> str:
    """What a call did, in a few words."""
    if tool.get("refused"):
        return "refused"
    if tool["tool"] != "image_search" or tool.get("query") is None:
        return ""
    return "found in the box" if tool.get("grounded") else "not found: whole image searched"


def _json(text: str, where: str | Path) -> dict[str, Any]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); run the evaluation again") from error


def _data_url(path: str) -> tuple[str | None, tuple[int, int]]:
    """The image made small, and its size in pixels; None where it is gone (a work folder that was moved)."""
    try:
        image = load_image(path)
    except ImageError:
        return None, (1, 1)
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
