"""What an evaluation is, in a sentence below the table: its mode, its ablations, its share of the questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmsearch_jax.evaluation.samples import RUN_FILE, read_stamp
from mmsearch_jax.evaluation.terminal_tables import KIND_NAMES
from mmsearch_jax.report.runs import RunEvaluation

_MODES = {
    "direct": "answers without any search",
    "rag": "a fixed workflow: one image search, one text search, then the answer",
    "prompted": "decides itself when to search; the tools are described in the prompt",
    "policy": "decides itself when and with which tool to search",
}
# Setting in run.json, its value in the ablation, and what that means.
_ABLATIONS = (
    ("episode.allow_crop", False, "each crop search is replaced by a whole-image search"),
    ("episode.allow_text", False, "no text search"),
    ("episode.allow_image", False, "no image search"),
    ("eval.oracle", True, "the questions' own evidence instead of search results"),
)


def meanings(evaluations: Sequence[RunEvaluation]) -> dict[str, str]:
    """The sentence of each evaluation by its label; evaluations of the same label on several benchmarks share one.

    Raises:
      DataError: a stamp is damaged.
    """
    found = dict[str, str]()
    for evaluation in evaluations:
        parts = [_MODES.get(str(evaluation.summary.get("mode")), "")]
        settings = _settings(evaluation)
        parts += [text for name, value, text in _ABLATIONS if settings.get(name) == value]
        by_kind = evaluation.summary["by_kind"]
        asked = [name for kind, name in KIND_NAMES.items() if by_kind.get(kind, {}).get("n")]
        if len(asked) == 1:
            parts.append(f"asked only the {asked[0]} questions")
        if checkpoint := evaluation.summary.get("checkpoint"):
            parts.append("/".join(Path(str(checkpoint)).parts[-2:]))
        found.setdefault(evaluation.label, "; ".join(part for part in parts if part))
    return {label: text for label, text in found.items() if text}


def _settings(evaluation: RunEvaluation) -> dict[str, object]:
    return dict(read_stamp(evaluation.folder).settings) if (evaluation.folder / RUN_FILE).is_file() else {}
