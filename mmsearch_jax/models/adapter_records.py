"""PEFT's `adapter_config.json`: what an adapter's tensors mean, or an error for a meaning that is not computed here.

Fields come in three kinds: those computed (`_COMPUTED`), those that change nothing when an adapter is applied
(`_WITHOUT_EFFECT`), and all others, known or not, which must be off (null, false, empty or PEFT's default).
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.json_files import json_object

_COMPUTED = ("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern")
# The modules are known from the tensors themselves; the rest is history or belongs to other frameworks.
_WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "megatron_core",
    "parent_library",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
)
# Other ways to begin (PiSSA, OLoRA, LoftQ, ...) change the base as well, so their updates fit no untouched base.
_SOUND = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
_OFF: tuple[Any, ...] = (None, False, [], {}, "")


@dataclasses.dataclass(frozen=True)
class AdapterRecord:
    """Rank and scale of each module's update.

    Attributes:
      rank, alpha: of modules that no pattern names.
      dropout: share of the updates' inputs that training dropped.
      rank_stabilised: whether the scale is alpha / sqrt(rank) (arXiv 2312.03732), not alpha / rank.
      rank_pattern, alpha_pattern: by regular expression, which the end of a module's name must match.
    """

    rank: int
    alpha: float
    dropout: float
    rank_stabilised: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> AdapterRecord:
        """Reads an adapter's config.

        Raises:
          CheckpointError: the file cannot be read, or has a field or a value that is not computed here (named).
        """
        record = json_object(path, CheckpointError, "give a folder that PEFT or a run with LoRA wrote")
        _refuse_other_meanings(path, record)
        return cls(
            _number(path, "r", record.get("r"), whole=True),
            _number(path, "lora_alpha", record.get("lora_alpha")),
            _number(path, "lora_dropout", record.get("lora_dropout") or 0, at_least=0.0),
            _flag(path, "use_rslora", record.get("use_rslora")),
            _patterns(path, "rank_pattern", record.get("rank_pattern"), whole=True),
            _patterns(path, "alpha_pattern", record.get("alpha_pattern")),
        )

    def rank_of(self, module: str) -> int:
        """The rank of a module's update, by the module's dotted name."""
        return self.rank_pattern.get(_first_match(self.rank_pattern, module), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor of a module's update, by the module's dotted name."""
        alpha, rank = self.alpha_pattern.get(_first_match(self.alpha_pattern, module), self.alpha), self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def _refuse_other_meanings(path: Path, record: Mapping[str, Any]) -> None:
    for name, value in record.items():
        if name in _COMPUTED or name in _WITHOUT_EFFECT or value in _OFF:
            continue
        if value in _SOUND.get(name, ()):
            continue
        raise CheckpointError(
            f"{path} sets {name} to {json.dumps(value)[:80]}, which is not computed here: merge the adapter with PEFT "
            "(merge_and_unload) and load the result"
        )


def _number(path: Path, name: str, value: Any, *, whole: bool = False, at_least: float | None = None) -> Any:
    sound = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not sound or (value <= 0 if at_least is None else value < at_least):
        kind = "a whole number above 0" if whole else "a number above 0" if at_least is None else "a number"
        found = "is missing" if value is None else f"is {json.dumps(value)[:80]}"
        raise CheckpointError(f"{path}: {name} {found}, expected {kind}: give the file that PEFT wrote")
    return value


def _flag(path: Path, name: str, value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{path}: {name} is {json.dumps(value)[:80]}, expected true or false")
    return bool(value)


def _patterns(path: Path, name: str, value: Any, *, whole: bool = False) -> dict[str, Any]:
    if not isinstance(value or {}, dict):
        raise CheckpointError(f"{path}: {name} is not an object of patterns: give the file that PEFT wrote")
    for pattern, number in (value or {}).items():
        _number(path, f"{name}['{pattern}']", number, whole=whole)
        try:
            re.compile(pattern)
        except re.error as error:
            raise CheckpointError(f"{path}: {name} has '{pattern}', which is no regular expression: {error}") from error
    return dict(value or {})


def _first_match(patterns: Mapping[str, Any], module: str) -> str:
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)), "")
