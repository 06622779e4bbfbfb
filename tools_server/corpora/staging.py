"""Builds a folder under a temporary name and renames it when it is complete.

A build that was killed leaves `OUT.part`, which nothing opens. The same command resumes after the last completed step; with
another recipe or changed source files it starts again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError

_RECIPE, _STEPS, _LOCK, _DRAFT = _OWN = ("recipe.json", "steps.json", "lock", "draft")
"""Files of the build itself, which are removed from the result."""


@dataclasses.dataclass
class Stage:
    """A build in progress. `folder` will be renamed; `steps` has the results of the completed steps."""

    folder: Path
    recipe: Mapping[str, Any]
    steps: dict[str, Any]

    def once(self, name: str, files: Sequence[str], work: Callable[[], Any]) -> Any:
        """The result of `work` (JSON), from now or before an interruption. A repeated step starts without its `files`."""
        if name not in self.steps:
            for file in files:
                _remove(self.folder / file)
            done = work()
            for file in files:
                _sync_all(self.folder / file)
            self.steps[name] = done
            _write_json(self.folder / _STEPS, self.steps)
        return self.steps[name]

    def file_sizes(self) -> dict[str, int]:
        """Bytes of every file of the result, by its path in the folder."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        return {name: size for name, size in sizes.items() if name not in _OWN}


@contextlib.contextmanager
def staged(out: Path, recipe: Mapping[str, Any]) -> Iterator[Stage]:
    """Gives a stage next to `out`, new or resumed from an interrupted build with the same recipe. At the end it becomes `out`.

    Raises:
      DataError: `out` exists, or another process builds it.
    """
    if out.exists():
        raise DataError(f"{out} exists: remove it or name another folder")
    folder = out.with_name(out.name + ".part")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"another process builds {out}: wait for it, or give another folder") from error
        if _read_json(folder / _RECIPE) != recipe:
            for path in folder.iterdir():
                if path.name != _LOCK:
                    _remove(path)
            _write_json(folder / _RECIPE, recipe)
        yield Stage(folder, recipe, _read_json(folder / _STEPS) or {})
        for name in _OWN:
            (folder / name).unlink(missing_ok=True)
        _sync_all(folder)
        folder.rename(out)
        _sync(out.parent)


def described(source: Path) -> dict[str, Any]:
    """A source file as a recipe records it, so that a change is noticed."""
    status = source.stat()
    return {"path": str(source.absolute()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # truncated by a kill: treated as not written
        return None


def _write_json(path: Path, value: Any) -> None:
    draft = path.with_name(_DRAFT)
    draft.write_text(json.dumps(value), encoding="utf-8")
    _sync(draft)
    draft.rename(path)


def _sync_all(path: Path) -> None:
    for inner in [path, *path.rglob("*")] if path.exists() else []:
        _sync(inner)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
