"""The data of the page's trajectory browser: every episode, in a compact form that viewer.js reads."""

from __future__ import annotations

import base64
import collections
import dataclasses
import gzip
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import tqdm

from mmsearch_jax.core.trajectory import SearchKind, search_kind
from mmsearch_jax.evaluation.terminal_tables import KIND_NAMES
from mmsearch_jax.report.pairs import ScoredSamples
from mmsearch_jax.report.pictures import Pictures
from mmsearch_jax.report.runs import RunEvaluation, read_samples
from mmsearch_jax.report.tokens import TokenPool, TokenWriter

KIND_ORDER = ("crop", "two_hop", "whole_image", "visual")
"""The most informative kinds come first."""


@dataclasses.dataclass(frozen=True)
class PageBudget:
    """The limits of a page. What exceeds them is left out, and the page says so.

    Attributes:
      image_bytes, thumbnail_bytes: bytes of JPEGs.
      tokens: number of tokens with provenance and log-probs, over all episodes; each evaluation has an equal share.
      observation_chars: characters of one observation.
    """

    image_bytes: int = 14 << 20
    thumbnail_bytes: int = 3 << 20
    tokens: int = 2_000_000
    observation_chars: int = 6000


@dataclasses.dataclass(frozen=True)
class ViewerData:
    """The data that the page embeds, and statistics over all episodes.

    Attributes:
      episodes: JSON, gzip, base64.
      images, thumbnails: JSON.
      tools: per evaluation, the tools of each scored episode, and whether its question needs a search.
      scored: per evaluation, its scored samples.
      notes: sentences on what was left out.
      count: number of episodes.
    """

    episodes: str
    images: str
    thumbnails: str
    notes: list[str]
    count: int
    tools: list[list[tuple[list[str], bool | None]]]
    scored: list[list[ScoredSamples]]


class _Read(NamedTuple):
    episode: dict[str, Any]
    image: str
    needs_search: bool | None
    score: float | None


def _score(sample: dict[str, Any]) -> float | None:
    return None if sample["correct"] is None else sample.get("score", float(sample["correct"]))


def collect(evaluations: Sequence[RunEvaluation], budget: PageBudget) -> ViewerData:
    """Reads all samples and converts them to the page's data.

    Raises:
      DataError: a sample is damaged.
    """
    pictures, pool = Pictures(budget.image_bytes, budget.thumbnail_bytes), TokenPool()
    records: list[dict[str, Any]] = []
    sources: list[tuple[str, RunEvaluation]] = []
    tools, scored, tokens_left_out = [], [], 0
    for number, evaluation in enumerate(tqdm.tqdm(evaluations, desc="report", unit="evaluation", leave=False)):
        writer = TokenWriter(str(evaluation.summary.get("checkpoint", "")), pool, budget.tokens // len(evaluations))
        of_key: dict[tuple[Any, ...], _Read] = {}
        for key, sample in read_samples(evaluation.folder):
            # Another shard may have retried a failed episode with success.
            if sample["correct"] is not None or key not in of_key:
                row = sample["row"]
                episode = _episode(sample, number, pictures, writer, budget)
                of_key[key] = _Read(episode, str(row["image"]), row.get("search_required"), _score(sample))
        read = list(of_key.values())
        records += [each.episode for each in read]
        sources += [(each.image, evaluation) for each in read]
        sound = [each for each in read if each.score is not None]
        tools.append([(each.episode["tools"], each.needs_search) for each in sound])
        scored.append(
            [ScoredSamples(each.episode["id"], each.image, each.score) for each in sound if each.score is not None]
        )
        tokens_left_out += writer.left_out
    _embed_images(records, sources, pictures)
    order = sorted(range(len(records)), key=lambda i: _kind_rank(records[i]))
    whole = {
        "evaluations": [
            {"label": e.label, "benchmark": e.benchmark, "name": e.summary.get("name")} for e in evaluations
        ],
        "kinds": KIND_NAMES,
        "spellings": pool.spellings,
        "episodes": [records[i] for i in order],
    }
    packed = gzip.compress(json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode(), 6, mtime=0)
    return ViewerData(
        episodes=base64.b64encode(packed).decode(),
        images=json.dumps(pictures.images, separators=(",", ":")),
        thumbnails=json.dumps(pictures.thumbnails, separators=(",", ":")),
        count=len(records),
        tools=tools,
        scored=scored,
        notes=_notes(pictures, tokens_left_out, budget),
    )


def _embed_images(records: list[dict[str, Any]], sources: list[tuple[str, RunEvaluation]], pictures: Pictures) -> None:
    """Embeds images first for questions on which evaluations disagree, then for those with a wrong answer."""
    outcomes: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for record, (_, evaluation) in zip(records, sources, strict=True):
        outcomes[evaluation.benchmark, record["id"]].add(record["outcome"])

    def rank(i: int) -> tuple[int, int]:
        met = outcomes[sources[i][1].benchmark, records[i]["id"]]
        return (0 if len(met) > 1 else 1 if "right" not in met else 2), _kind_rank(records[i])

    for i in sorted(range(len(records)), key=rank):
        source, evaluation = sources[i]
        records[i]["image"] = pictures.image(source, evaluation.folder)


def _kind_rank(record: dict[str, Any]) -> int:
    return KIND_ORDER.index(record["kind"]) if record["kind"] in KIND_ORDER else len(KIND_ORDER)


def _episode(
    sample: dict[str, Any], evaluation: int, pictures: Pictures, writer: TokenWriter, budget: PageBudget
) -> dict[str, Any]:
    row, trajectory = sample["row"], sample["trajectory"]
    turns = [_turn(turn, pictures, budget) for turn in trajectory["turns"]]
    record = {
        "e": evaluation,
        "id": row["id"],
        "repeat": sample.get("repeat", 0),
        "kind": row.get("kind") or "",
        "category": row.get("category") or "",
        "question": row["question"],
        "gold": row["answers"],
        "outcome": {True: "right", False: "wrong", None: "failed"}[sample["correct"]],
        "status": trajectory["status"],
        "answer": trajectory["answer"],
        "error": trajectory.get("error"),
        "tools": tool_names(trajectory["turns"]),
        "turns": turns,
        "tokens": writer.write(trajectory),
    }
    if sample.get("score") is not None:
        record["score"] = sample["score"]
    return record


def tool_names(turns: Sequence[dict[str, Any]]) -> list[SearchKind]:
    """The searches that were sent to the server, in order."""
    sent = [tool for turn in turns if (tool := turn.get("tool")) and not tool.get("refused")]
    return [search_kind(tool["tool"], tool.get("query")) for tool in sent]


def _turn(turn: dict[str, Any], pictures: Pictures, budget: PageBudget) -> dict[str, Any]:
    tool, action = turn.get("tool") or {}, turn["action"]
    observation = turn["observation"]
    if observation is not None and len(observation) > budget.observation_chars:
        observation = observation[: budget.observation_chars] + " [cut for this page]"
    hits = [
        [hit["title"], hit.get("url") or "", pictures.thumbnail(hit.get("thumbnail_base64")), hit["snippet"][:200]]
        for hit in tool.get("results", [])
    ]
    shown = {
        "kind": action["kind"],
        "reason": turn["reason"],
        "observation": observation,
        "tool": tool.get("tool"),
        "query": tool.get("query"),
        "how": _how(tool),
        "box": tool.get("box"),
        "note": tool.get("note"),
        "error": tool.get("error"),
        "ms": round(tool.get("elapsed_ms") or 0),
        "hits": hits,
        # A turn that was parsed is shown by its parts, without its raw text.
        "text": turn["text"]
        if action["kind"] == "invalid" or (not turn["reason"] and action["kind"] != "answer")
        else None,
    }
    return {key: value for key, value in shown.items() if value not in (None, "", [], 0)}


def _how(tool: dict[str, Any]) -> str:
    """A short description of a call's outcome."""
    if tool.get("refused"):
        return "refused"
    if not tool or search_kind(tool["tool"], tool.get("query")) != SearchKind.CROP:
        return ""
    return "searched the box" if tool.get("grounded") else "region not found: searched the whole image"


def _notes(pictures: Pictures, tokens_left_out: int, budget: PageBudget) -> list[str]:
    notes = []
    if pictures.left_out:
        notes.append(
            f"{len(pictures.images)} of {len(pictures.images) + pictures.left_out + pictures.missing} images are embedded "
            f"({budget.image_bytes >> 20} MiB of JPEGs): first those of questions on which evaluations disagree, then "
            "those of wrong answers."
        )
    if pictures.missing:
        notes.append(f"{pictures.missing} images are missing: their files were moved or deleted after the run.")
    if pictures.thumbnails_left_out:
        notes.append(f"{pictures.thumbnails_left_out} thumbnails of results are left out (over the size limit).")
    if tokens_left_out:
        notes.append(f"Tokens of {tokens_left_out} episodes are left out (the limit is {budget.tokens:,} tokens).")
    return notes
