"""Rules about files: work directory, checkpoint, rows, benchmarks, arguments that name files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmsearch_jax.core.addresses import check_workdir, scheme
from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.hub import missing_checkpoint
from mmsearch_jax.jobs.check.run import Note, Run
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.settings.evaluation import NO_SERVER
from mmsearch_jax.settings.learning import TOY_WORLD


def workdir(run: Run) -> Iterator[str]:
    """It can be written to, and all machines see it."""
    if run.workdir is None:
        return
    check_workdir(run.workdir, run.processes > 1)
    if run.elsewhere and not run.place.is_shared(run.workdir):
        yield (
            f"--workdir {run.workdir} is lost with the run's machines: give a directory below "
            f"{' or '.join(run.place.mounts)}, which outlives them"
        )
    elif run.machines > 1 and not run.place.is_shared(run.workdir):
        yield (
            f"--workdir {run.workdir} must be on storage that all {run.machines} machines share: put it there, and name that "
            "storage to the check with --shared DIR (or --mount DIR if this machine lacks it)"
        )
    elif not run.elsewhere and (at := _file_above(run.workdir)):
        yield f"--workdir {run.workdir} cannot be made: {at} is a file"


def earlier_results(run: Run) -> Iterator[str]:
    """The work directory holds no results of other settings."""
    from mmsearch_jax.jobs.identities import require_same_results

    if run.workdir is not None and not run.elsewhere and not scheme(run.workdir) and not run.rescores:
        require_same_results(run.command, run.settings, run.workdir)
    yield from ()


def checkpoint(run: Run) -> Iterator[str]:
    """A policy's folder with sizes, weights and tokenizer, or an adapter whose base is here."""
    named = getattr(run.settings, "checkpoint", "")
    if not named or run.endpoint or run.rescores:
        return
    if not run.place.is_here(named, "checkpoint"):
        return
    from mmsearch_jax.models.policy_folder import ADAPTER_CONFIG, base_of, weights_layout

    folder = Path(named)
    if hasattr(run.settings, "base") and weights_layout(folder) == ADAPTER_CONFIG:
        folder = Path(base_of(folder, run.settings.base))
    _require_policy(folder)
    yield from ()


def rows(run: Run) -> Iterator[str]:
    """Files of rows that the settings name, as far as they exist (`services.ready` says which do not)."""
    from mmsearch_jax.data.storage import existing_rows

    for key, path in _named_rows(run):
        if not run.place.is_here(path, key) or not Path(path).exists():
            continue
        found = existing_rows(path)
        if key.startswith("sft.data") and found.suffix != ".array_record":
            yield (
                f"{key} names {path}, but SFT reads ArrayRecord files: "
                f"mmsearch data convert rows {path} {Path(path).with_suffix('.array_record')}"
            )


def tokenizer(run: Run) -> Iterator[str]:
    """The tokenizer of datagen."""
    from mmsearch_jax.models.tokenizer import require_tokenizer

    named = getattr(run.settings, "tokenizer", "")
    if named and run.place.is_here(named, "tokenizer"):
        if not Path(named).is_dir():
            raise CheckpointError(missing_checkpoint(named))
        require_tokenizer(named)
    yield from ()


def benchmarks(run: Run) -> Iterator[str]:
    """Sets of an evaluation: a set that is asked for by name, and a file of rows, must be there."""
    from mmsearch_jax.data.storage import existing_rows

    settings = run.settings
    if not getattr(settings, "sets", None) or run.rescores:
        return
    named = bool(settings.only or settings.rows.path)
    for name in settings.chosen:
        benchmark = settings.sets[name]
        path = Path(settings.rows.path or Path(settings.data) / benchmark.path)
        own_data = benchmark.source != "miniworld"
        absent = own_data and run.place.is_here(path, f"the data of {name}") and not path.exists()
        if absent and not settings.rows.path:
            missing = f"the benchmark {name} has no data at {path}: get it from {benchmark.where or 'its publisher'}"
            yield missing if named else Note(missing)
        # A set that is passed over for lack of data needs no server.
        if settings.lacks_server(name) and (named or not absent):
            text = f"the benchmark {name} {NO_SERVER}"
            yield text if named else Note(text)
        if settings.rows.path and not absent and run.place.is_here(path, "rows.path"):
            existing_rows(path)


def arguments(run: Run) -> Iterator[str]:
    """Files that the command's own arguments name."""
    for name, path in run.inputs:
        if run.place.is_here(path, name) and not Path(path).exists():
            yield f"{name}: there is no {path}"


def _require_policy(folder: Path) -> None:
    from mmsearch_jax.models.policy_folder import PARAMS, weights_layout
    from mmsearch_jax.models.tensor_files import weight_files
    from mmsearch_jax.models.tokenizer import require_tokenizer

    ModelConfig.from_pretrained(folder)
    if weights_layout(folder) != PARAMS:
        weight_files(folder)
    require_tokenizer(folder)


def _named_rows(run: Run) -> Iterator[tuple[str, str]]:
    for stage, recipe in run.stages:
        if stage == "sft":
            yield from (("sft.data.sets", path) for path in recipe.data.sets if path != TOY_WORLD)
            yield from (("sft.data.validation", path) for path in recipe.data.validation)
        else:
            rows = {"grpo.rows": recipe.rows, "grpo.eval_rows": recipe.eval_rows}
            yield from ((key, path) for key, path in rows.items() if path not in ("", TOY_WORLD))
    if path := getattr(getattr(run.settings, "seeds", None), "path", ""):
        yield "seeds.path", path


def _file_above(path: Path) -> Path | None:
    return next((each for each in (path, *path.parents) if each.is_file()), None)
