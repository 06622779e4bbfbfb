"""Which settings the results in a work directory depend on. A start with others is refused. Loads no JAX.

The jobs keep these with what they write, and `require_same_results` compares them before a job starts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmsearch_jax.core.addresses import scheme
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.settings import Section, leaves, plain
from mmsearch_jax.core.staging import local_copy
from mmsearch_jax.datagen.journal import require_same_settings
from mmsearch_jax.evaluation.fingerprint import fingerprint
from mmsearch_jax.evaluation.samples import RUN_FILE, answers_depend_on, require_same_answers
from mmsearch_jax.jobs.stages import Stages
from mmsearch_jax.learners.run_identity import require_resumable
from mmsearch_jax.models.policy_folder import ADAPTER_CONFIG, base_of, weights_layout
from mmsearch_jax.settings.commands import (
    EvaluationSettings,
    GRPOSettings,
    LearnerSettings,
    QuickstartSettings,
    SFTSettings,
)
from mmsearch_jax.settings.datagen import DatagenSettings
from mmsearch_jax.settings.learning import TOY_WORLD
from mmsearch_jax.settings.world import PretrainSettings

MINIWORLD, JOURNAL = "miniworld", "journal.jsonl"
_RECIPE = {
    "sft": ("optimizer", "batch", "freeze", "accumulate", "train_end"),
    "grpo": ("optimizer", "batch", "freeze", "loss", "group_size", "prompts_per_step"),
}
# They change how a run is stored and served, not its results.
_FREE = ("run.", "tools.")


def training(settings: LearnerSettings, stage: str) -> dict[str, Any]:
    """The settings that the numbers of a training run depend on, and that must not change when it is resumed.

    Args:
      stage: "sft" or "grpo".
    """
    recipe = getattr(settings, stage)
    chosen = {key: plain(getattr(settings, key)) for key in ("checkpoint", "seed", "lora")}
    chosen |= {f"{stage}.{key}": plain(getattr(recipe, key)) for key in _RECIPE[stage]}
    # It changes what is saved, not what is trained.
    chosen["lora"].pop("merge_dtype", None)
    if TOY_WORLD in (recipe.data.sets if stage == "sft" else (recipe.rows,)):
        # The toy world's rows are made from these; the evaluation's half is another world.
        chosen["world"] = {name: value for name, value in plain(settings.world).items() if name != "num_eval_rows"}
    return _as_json(chosen)


def pretraining(settings: PretrainSettings) -> dict[str, Any]:
    """All that the tiny base depends on."""
    return _as_json({name: value for name, value in plain(settings).items() if name not in ("out", "checkpoint_every")})


def quickstart(settings: QuickstartSettings) -> dict[str, Any]:
    """All that the quickstart's results depend on, by dotted name."""
    return {path: plain(value) for path, _, _, value in leaves(settings) if not path.startswith(_FREE)}


def conversations(settings: DatagenSettings) -> dict[str, Any]:
    """What the conversations of datagen depend on, except the tokenizer."""
    return {
        "seeds": plain(settings.seeds),
        "episode": plain(settings.episode),
        "teacher": settings.teacher.model,
        "target": settings.labels.target.model,
        "samples": settings.labels.samples,
        "categories": settings.labels.categories,
        "required_below": settings.labels.required_below,
        "seed": settings.seed,
    }


def evaluated_folders(settings: EvaluationSettings) -> tuple[Path, Path | None]:
    """The folder of the evaluated policy, and its adapter's if `checkpoint` names one."""
    folder = local_copy(settings.checkpoint)
    if weights_layout(folder) != ADAPTER_CONFIG:
        return folder, None
    return local_copy(base_of(folder, settings.base)), folder


def evaluated_policy(settings: EvaluationSettings, folder: Path, adapter: Path | None) -> dict[str, Any]:
    """The record that identifies a policy from `evaluated_folders`."""
    return {
        "kind": "checkpoint" if adapter is None else "adapter",
        "dtype": settings.dtype,
        "max_pixels": settings.max_pixels,
        "fingerprint": fingerprint(folder, *([adapter] if adapter is not None else [])),
    }


def require_same_results(command: str, settings: Section | None, workdir: Path) -> None:
    """Compares a command with the results in its local work directory; reads only.

    Raises:
      MMSearchError: the results were made with other settings; the message names one, and both values.
    """
    if isinstance(settings, QuickstartSettings):
        Stages(workdir, quickstart(settings), settings.run.resume)
    elif isinstance(settings, SFTSettings | GRPOSettings):
        if settings.run.resume:
            require_resumable(workdir, command, training(settings, command))
    elif isinstance(settings, PretrainSettings):
        require_resumable(workdir, "pretrain_tower", pretraining(settings))
    elif isinstance(settings, DatagenSettings):
        require_same_settings(workdir / JOURNAL, conversations(settings))
    elif isinstance(settings, EvaluationSettings) and command == "eval" and settings.eval.if_changed == "refuse":
        _require_same_answers(settings, workdir)


def require_samples(settings: EvaluationSettings, workdir: Path) -> list[Path]:
    """The folders with samples of an evaluation.

    Raises:
      DataError: there are none.
    """
    root = workdir / "eval" / settings.eval.name
    folders = [root / name for name in settings.chosen] if settings.sets else [root]
    found = [folder for folder in folders if (folder / RUN_FILE).is_file()]
    if not found:
        raise DataError(f"no samples in {root}: run the evaluation first, or give its --workdir and --config.eval.name")
    return found


def _require_same_answers(settings: EvaluationSettings, workdir: Path) -> None:
    root, own = workdir / "eval" / settings.eval.name, settings.eval
    named = {name: root / name for name in settings.chosen} if settings.sets else {MINIWORLD: root}
    found = {name: folder for name, folder in named.items() if folder.is_dir()}
    if not found:
        return
    policy, checkpoint = dict[str, Any](), settings.checkpoint
    if settings.endpoint.url:
        policy, checkpoint = {"kind": "endpoint", "model": settings.endpoint.model}, settings.endpoint.model
    elif not scheme(checkpoint):
        policy = evaluated_policy(settings, *evaluated_folders(settings))
    for name, folder in found.items():
        rules = settings.rules(name if settings.sets else "")
        answers = answers_depend_on(policy, name, own.temperature, settings.seed, own.oracle, rules)
        require_same_answers(folder, answers, checkpoint)


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    # Checkpoints return tuples as lists.
    return json.loads(json.dumps(value))
