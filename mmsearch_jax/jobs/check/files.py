"""Rules about files: work directory, checkpoint, rows, benchmarks, arguments that name files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmsearch_jax.core.addresses import check_workdir, scheme
from mmsearch_jax.core.errors import CheckpointError, ConfigError
from mmsearch_jax.core.hub import missing_checkpoint
from mmsearch_jax.jobs.check.run import Note, Run
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.settings.evaluation import NO_SERVER
from mmsearch_jax.settings.learning import TOY_WORLD


def workdir(run: Run) -> Iterator[str]:
    """The work directory is writable, and all machines see it."""
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
    elif not run.elsewhere and not scheme(run.workdir):
        if at := _file_above(run.workdir):
            yield f"--workdir {run.workdir} cannot be made: {at} is a file"
        elif not os.access(at := _folder_above(run.workdir), os.W_OK | os.X_OK):
            yield f"--workdir {run.workdir} cannot be made or written to: {at} is not yours to write to; give another one"


def earlier_results(run: Run) -> Iterator[str]:
    """The work directory holds no results of other settings."""
    from mmsearch_jax.jobs.identities import require_same_results, require_samples

    if run.workdir is None or run.elsewhere or not run.place.is_here(run.workdir, "--workdir"):
        return
    if run.rescores:
        require_samples(run.settings, run.workdir)
    else:
        require_same_results(run.command, run.settings, run.workdir)
    direct = getattr(getattr(run.settings, "eval", None), "direct", "")
    if direct and run.command == "eval" and not (run.workdir / "eval" / direct).is_dir():
        yield f"eval.direct is '{direct}', but there is no {run.workdir / 'eval' / direct}: run that evaluation first"


def checkpoint(run: Run) -> Iterator[str]:
    """A policy's folder with sizes, weights and tokenizer, or an adapter whose base is here."""
    named = getattr(run.settings, "checkpoint", "")
    if run.endpoint or run.rescores or not hasattr(run.settings, "checkpoint"):
        return
    if not named:
        raise ConfigError("checkpoint is empty: give the folder of a policy or of a Hugging Face model")
    if not run.place.is_here(named, "checkpoint"):
        return
    from mmsearch_jax.models.policy_folder import ADAPTER_CONFIG, base_of, weights_layout

    folder = Path(named)
    if folder.is_dir() and weights_layout(folder) == ADAPTER_CONFIG:
        if not hasattr(run.settings, "base"):
            raise CheckpointError(
                f"{folder} is a LoRA adapter, and mmsearch {run.command} needs a whole policy: give the folder of the "
                "policy with the adapter merged in (a training run writes it beside the adapter)"
            )
        folder = Path(base_of(folder, run.settings.base))
    _require_policy(folder)
    yield from ()


def rows(run: Run) -> Iterator[str]:
    """Files of rows that the settings name, as far as they exist (`services.ready` says which do not)."""
    from mmsearch_jax.data.storage import existing_rows, require_rows

    for key, path in _named_rows(run):
        if not run.place.is_here(path, key) or not Path(path).exists():
            continue
        found = existing_rows(path)
        if found.suffix == ".array_record" or not key.startswith("sft.data"):
            require_rows(path)
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
    from mmsearch_jax.data.storage import require_rows

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
            require_rows(path)


def arguments(run: Run) -> Iterator[str]:
    """Files that the command's own arguments name."""
    for name, path in run.inputs:
        if run.place.is_here(path, name) and not Path(path).exists():
            yield f"{name}: there is no {path}"


def _require_policy(folder: Path) -> None:
    from mmsearch_jax.models.policy_folder import PARAMS, weights_layout
    from mmsearch_jax.models.tensor_files import TensorFiles
    from mmsearch_jax.models.tokenizer import require_tokenizer

    ModelConfig.from_pretrained(folder)
    if weights_layout(folder) != PARAMS:
        # Opens every file, and so finds those that a broken download has left.
        with TensorFiles(folder):
            pass
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


def _folder_above(path: Path) -> Path:
    whole = path.absolute()
    return next(each for each in (whole, *whole.parents) if each.is_dir())


def _file_above(path: Path) -> Path | None:
    return next((each for each in (path, *path.parents) if each.is_file()), None)
