"""Work directories in a bucket: a local folder that is copied there at intervals and at the end; and copies of what is read.

Code below a command sees local folders only. An object store can neither append nor rename, so files that changed are written
as whole objects. What a folder of checkpoints needs to be complete is written last and removed first, so that a kill at any
moment leaves whole checkpoints. Orbax itself writes to gs:// (`native_address`); to s3:// it cannot.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from mmsearch_jax.core.buckets import Bucket, is_address, normal, open_bucket
from mmsearch_jax.core.errors import StorageError
from mmsearch_jax.core.run_lock import NAME as LOCK
from mmsearch_jax.core.run_lock import RunLock

_INTERVAL_S = 10.0
# A push of large files waits longer for the next one, so that copying takes at most about a tenth of the time.
_REST = 10.0
_CHECKPOINTS, _LAST = "checkpoints", "_CHECKPOINT_METADATA"
_STEP = re.compile(rf"^{_CHECKPOINTS}/[^/]+/\d+/")
_UNFINISHED = re.compile(r"\.partial$|\.part$|\.orbax-checkpoint-tmp|(^|/)\.[^/]*$")
_staged: list[StagedDirectory] = []
_addresses: dict[str, str] = {}  # Of local folders, also after they were closed: errors that name them come later.


class StagedDirectory:
    """A bucket's address as a local folder (`path`); a context manager that copies back at intervals and at its end.

    Raises:
      StorageError: the bucket cannot be used.
    """

    def __init__(self, address: str | Path):
        self.address = normal(address)
        self.bucket = open_bucket(self.address)
        # Made when it is entered: a directory that another run holds leaves no folder here.
        self.path = Path(tempfile.gettempdir()).resolve() / f"mmsearch-{secrets.token_hex(6)}"
        self._native = self.address.startswith("gs://")
        self._known: dict[str, str] = {}  # What the bucket has, by its tags.
        self._pushed: dict[str, tuple[int, int]] = {}  # What the folder had when both were equal.
        self._busy, self._wake, self._ended = threading.RLock(), threading.Event(), False
        self._thread = threading.Thread(target=self._push_at_intervals, name="staging", daemon=True)

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700)
        _addresses[str(self.path)] = self.address
        with contextlib.ExitStack() as failed:
            failed.callback(shutil.rmtree, self.path, ignore_errors=True)
            self.pull()
            failed.pop_all()
        _staged.append(self)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join()
        _staged.remove(self)
        try:
            self.push()
        except StorageError as error:
            del _addresses[str(self.path)]  # The message means the folder.
            raise StorageError(f"{error}; what could not be copied is kept in {self.path}") from error
        shutil.rmtree(self.path, ignore_errors=True)

    def pull(self) -> None:
        """Copies objects that are new or changed to the folder."""
        with self._busy:
            found = {name: tag for name, tag in self.bucket.list().items() if not self._is_left_out(name)}
            whole = {name.removesuffix(_LAST) for name in found if _STEP.match(name) and name.endswith(f"/{_LAST}")}
            for name, tag in found.items():
                step = _STEP.match(name)
                if self._known.get(name) == tag or (step and step[0] not in whole):
                    continue
                path = self.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self.bucket.download(name, path)
                self._known[name], self._pushed[name] = tag, _state(path)

    def push(self, checkpoints: bool = True) -> None:
        """Copies files that are new or changed to the bucket, and removes objects whose file was removed.

        Args:
          checkpoints: whether the folder of checkpoints is copied, too.
        """
        with self._busy:
            # Checkpoints that are complete now. Their metrics are written already, and go first.
            names = sorted(self._files(), key=lambda name: (bool(_STEP.match(name)), name.endswith(f"/{_LAST}"), name))
            for name in names:
                state = _state_or_none(self.path / name)
                if state is None or self._pushed.get(name) == state or (_STEP.match(name) and not checkpoints):
                    continue
                self.bucket.upload(self.path / name, name)
                self._pushed[name] = state
            for name in sorted(self._pushed.keys() - set(names), key=lambda name: not name.endswith(f"/{_LAST}")):
                self.bucket.delete(name)
                self._pushed.pop(name)
                self._known.pop(name, None)

    def _files(self) -> list[str]:
        found = (str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())
        return [name for name in found if not self._is_left_out(name)]

    def _is_left_out(self, name: str) -> bool:
        own = self._native and name.startswith(f"{_CHECKPOINTS}/")
        return own or name.endswith(LOCK) or _UNFINISHED.search(name) is not None

    def _push_at_intervals(self) -> None:
        wait = _INTERVAL_S
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            if self._ended:
                return
            began = time.monotonic()
            try:
                self.push()
            except (StorageError, OSError) as error:
                print(f"not copied to {self.address}, and tried again: {error}", file=sys.stderr)
            wait = max(_INTERVAL_S, _REST * (time.monotonic() - began))

    def push_soon(self) -> None:
        """Lets the next copy begin now, without waiting for it."""
        self._wake.set()


def lock_of(staged: StagedDirectory) -> RunLock:
    """The lock of a work directory in a bucket."""
    return RunLock(staged.address, _BucketPlace(staged.bucket))


def push_all(checkpoints: bool = True) -> None:
    """Copies every open work directory to its bucket now."""
    for each in _staged:
        each.push(checkpoints)


def push_all_soon() -> None:
    """Lets the next copy of every open work directory begin now, without waiting for it."""
    for each in _staged:
        each.push_soon()


def pull_all() -> None:
    """Copies to every open work directory what other processes wrote."""
    for each in _staged:
        each.pull()


def shown(path: str | Path) -> str:
    """The path as the user knows it: a bucket's address if it lies in a staged directory or a local copy."""
    for root, address in [(each.path, each.address) for each in _staged] + list(_copies().items()):
        with contextlib.suppress(ValueError):
            return f"{address}/{Path(path).resolve().relative_to(root)}".removesuffix("/.")
    return str(path)


def shown_in(message: str) -> str:
    """The message with buckets' addresses in the place of the local folders that stand for them."""
    for folder, address in _addresses.items():
        message = message.replace(folder, address)
    return message


def portable(path: str, folder: Path) -> str:
    """The path as a file in `folder` should name it: relative if both are in one staged directory, whose place changes."""
    for each in _staged:
        if Path(path).is_relative_to(each.path) and folder.resolve().is_relative_to(each.path):
            return os.path.relpath(path, folder.resolve())
    return path


def native_address(path: Path) -> str | None:
    """The address to which Orbax writes this folder itself, or None if it writes to the folder."""
    address = shown(path)
    return address if address.startswith("gs://") else None


def local_copy(path: str | Path) -> Path:
    """The path; for an address in a bucket a copy of its file or folder, which lives as long as this process.

    Raises:
      StorageError: the bucket cannot be used, or holds nothing there.
    """
    if not is_address(path):
        return Path(path)
    address = normal(path)
    for root, known in _copies().items():
        if known == address:
            return root
    folder, _, name = address.rpartition("/")
    bucket, target = open_bucket(address), Path(tempfile.mkdtemp(dir=_scratch())) / name
    objects = [each for each in bucket.list() if each]
    if objects:
        for each in objects:
            (target / each).parent.mkdir(parents=True, exist_ok=True)
            bucket.download(each, target / each)
    elif (content := open_bucket(folder)).read(name) is not None:
        content.download(name, target)
    else:
        raise StorageError(f"there is nothing at {address}")
    _copies()[target] = _addresses[str(target)] = address
    return target


class _BucketPlace:
    """The record of a lock as an object."""

    def __init__(self, bucket: Bucket):
        self._bucket = bucket

    def read(self) -> bytes | None:
        return self._bucket.read(LOCK)

    def create(self, record: bytes) -> bool:
        return self._bucket.create(LOCK, record)

    def replace(self, old: bytes, new: bytes) -> bool:
        return self._bucket.replace(LOCK, old, new)

    def remove(self) -> None:
        self._bucket.delete(LOCK)


@functools.cache
def _copies() -> dict[Path, str]:
    return {}


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mmsearch-copies-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _state_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return _state(path)
    except FileNotFoundError:
        return None  # Removed or renamed in this moment.
