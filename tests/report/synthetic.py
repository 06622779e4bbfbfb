"""Synthetic work directories for reports: any number of episodes, with hostile text in every field of a page."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.search_api import SearchResult
from mmsearch_jax.core.trajectory import OBSERVATION, PROMPT, Status, ToolRecord, Trajectory, Turn
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.models.tokenizer import load_tokenizer

TINY_BASE = Path(__file__).parents[2] / "assets" / "tiny-base"
HOSTILE = (
    '<script>window.owned = 1</script><img src=x onerror="window.owned = 2"></script></textarea>'
    "<svg onload=window.owned=3>&lt;b&gt;{{ 7 * 7 }}"
)
KINDS = ("crop", "two_hop", "whole_image", "visual")


def thumbnail() -> str:
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (200, 40, 40)).save(out, "JPEG")
    return base64.b64encode(out.getvalue()).decode()


def picture(folder: Path, number: int, side: int = 448) -> str:
    """A noisy picture (with the compressed size of a photograph)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((side, side * 3 // 4))
    small.save(folder / f"{number}.jpg", quality=80)
    return str(folder / f"{number}.jpg")


def episode(number: int, image: str, right: bool, hostile: bool = False, words: int = 40) -> dict:
    """A record of samples.jsonl; the number determines kind, tools and status."""
    rng = np.random.default_rng(number)
    kind = KINDS[number % 4]
    said = HOSTILE if hostile else " ".join(f"word{i}" for i in rng.integers(0, 3000, words))
    urls = ("javascript:window.owned=4", " JaVaScript:window.owned=5", "data:text/html,x") if hostile else ()
    urls = urls or (f"https://example.org/{number}", "http://example.org/b")
    results = tuple(SearchResult(f"title {number} {said[:60]}", said, url, thumbnail()) for url in urls)
    turns = []
    if kind in ("crop", "two_hop"):
        tool = ToolRecord("image_search", f"the flag {said[:80]}", (112, 84, 224, 168), True, results, elapsed_ms=12.4)
        reason, found = f"what flag? {said[:200]}", f"<information>{said}</information>"
        turns.append(Turn("", reason, ImageSearch("the flag"), 0, 1, found, tool))
    if kind in ("two_hop", "whole_image"):
        tool = ToolRecord(
            "text_search", f"capital {number}", results=results, error="HTTP 500 <b>" if hostile else None
        )
        turns.append(Turn("", f"which capital? {said[:200]}", TextSearch(f"capital {number}"), 0, 1, said, tool))
    broken = kind == "visual" and number % 8 == 3
    turns.append(Turn(said, None, Invalid("no tag"), 1, 2) if broken else Turn("", "now I know", Answer("Lima"), 1, 2))
    answer = None if broken else HOSTILE if hostile else "Lima" if right else "Quito"
    trajectory = Trajectory(
        f"t{number}",
        f"q{number}",
        f"q{number}",
        status=Status.INVALID_ACTION if broken else Status.ANSWERED,
        answer=answer,
        turns=turns,
    )
    row = {
        "id": f"q{number}",
        "image": image,
        "question": f"Question {number}? {HOSTILE if hostile else ''}",
        "answers": ["Lima"],
        "kind": kind,
        "search_required": kind != "visual",
        "category": "Place",
    }
    return {"correct": right and not broken, "row": row, "trajectory": trajectory.to_json()}


def with_tokens(sample: dict) -> dict:
    """The sample with tokens: a prompt with an image, sampled tokens, an observation; one character has two tokens."""
    renderer = ChatRenderer(load_tokenizer(TINY_BASE))
    trajectory = Trajectory("t", "r", "g")
    trajectory.append(renderer.prompt_ids("Where is it?", [6]), PROMPT)
    written = renderer.encode("<reason>é, so ß</reason>")
    logprobs = [-0.01 - 0.5 * i for i in range(len(written))]
    trajectory.append_sampled(written, logprobs)
    trajectory.append(renderer.observation_ids("<information>Peru</information>"), OBSERVATION)
    parts = ("token_ids", "provenance", "logprobs")
    sample["trajectory"].update({part: getattr(trajectory, part) for part in parts})
    return sample


def summary(name: str, samples: list[dict], benchmark: str = "miniworld") -> dict:
    """The fields of summary.json that a report reads."""

    def group(chosen: list[dict]) -> dict:
        right = sum(bool(s["correct"]) for s in chosen)
        accuracy = right / len(chosen) if chosen else 0.0
        return {"n": len(chosen), "accuracy": accuracy, "ci95": [max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)]}

    return {
        "name": name,
        "benchmark": benchmark,
        "mode": "policy",
        "checkpoint": str(TINY_BASE),
        "seed": 3,
        **group(samples),
        "by_kind": {kind: group([s for s in samples if s["row"]["kind"] == kind]) for kind in KINDS},
        "search_required": group([s for s in samples if s["row"]["search_required"]]),
        "search_free": group([s for s in samples if not s["row"]["search_required"]]),
        "searches_per_question": 1.25,
        "needless_search_rate": 0.125,
        "infrastructure_failures": 0,
        "tool_use": {
            "searched": 0.5,
            "mixed": 0.25,
            "multi_text": 0.125,
            "calls_per_correct_answer": 2.75,
            "missed": {"n": 4, "share": 0.375},
            "self_correction": {"opportunities": 3, "corrected": 2},
        },
        "seconds": {"mean": 1.5, "p95": 3.25},
        "cost_usd": {"per_question": 0.0125},
    }


def write_evaluation(
    workdir: Path, name: str, samples: list[dict], benchmark: str = "miniworld", below: str = ""
) -> Path:
    """Writes an evaluation's folder."""
    folder = workdir / "eval" / name / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary(name, samples, benchmark)))
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


def write_metrics(workdir: Path, slope: float = 0.1) -> None:
    """Writes metrics for learning curves."""
    steps = [{"phase": "grpo", "step": i, "reward": slope * i, "accuracy": slope * i / 2} for i in range(12)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))


def small_run(workdir: Path) -> Path:
    """Two evaluations of eight questions: all text of question 0 is hostile; the later one gets question 1 right."""
    images = [picture(workdir / "images", i) for i in range(8)]
    for name in ("sft", "grpo"):
        samples = [
            episode(i, images[i], right=i % 3 != 1 or (name == "grpo" and i == 1), hostile=i == 0) for i in range(8)
        ]
        samples[4] = with_tokens(samples[4])
        write_evaluation(workdir, name, samples)
    write_metrics(workdir)
    return workdir


def large_run(workdir: Path, questions: int, images: int) -> Path:
    """Two evaluations of many questions, several per image."""
    paths = [picture(workdir / "images", i) for i in range(images)]
    for name in ("sft", "grpo"):
        samples = [
            episode(i, paths[i % images], right=(i * 7 + len(name)) % 3 > 0, words=300) for i in range(questions)
        ]
        write_evaluation(workdir, name, samples)
    return workdir
