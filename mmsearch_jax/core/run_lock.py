"""The lock of a work directory: one job at a time writes to it. It does not know what the job does.

The lock is a record (host, pid, command, since when) in a file or an object. A job that dies leaves its record behind, which
the next one recognises: on the same host because the process is gone, on another host because the record's beat stands still.
"""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import json
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

from mmsearch_jax.core.errors import DirectoryInUse, StorageError

NAME = "run.lock"
_BEAT_S, _SILENT_S = 15.0, 60.0
_held: dict[str, RunLock] = {}


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
      token: differs for every holder.
      boot: identifies the process beyond its pid: its start time and the machine's boot.
      beat: grows while the owner lives.
    """

    host: str
    pid: int
    boot: str
    command: str
    since: str
    token: str
    beat: int = 0

    @classmethod
    def here(cls, pid: int | None = None) -> Owner:
        """This process, or another one of this host."""
        since = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        pid, command = pid or os.getpid(), shlex.join(sys.argv)[:300]
        return cls(socket.gethostname(), pid, _born(pid), command, since, secrets.token_hex(8))

    @classmethod
    def read(cls, encoded: bytes | None) -> Owner | None:
        """The owner in a record; None if there is none, or if a kill cut it short."""
        try:
            return cls(**json.loads(encoded or b""))
        except (ValueError, TypeError):
            return None

    def encode(self) -> bytes:
        """The record."""
        return json.dumps(dataclasses.asdict(self)).encode()


class LockPlace(Protocol):
    """Where a lock's record is kept."""

    def read(self) -> bytes | None:
        """The record, None if there is none."""
        ...

    def create(self, record: bytes) -> bool:
        """Writes the record if there is none; whether it did."""
        ...

    def replace(self, old: bytes, new: bytes) -> bool:
        """Writes the record in the place of `old`; False if another one is there."""
        ...

    def remove(self) -> None:
        """Removes the record."""
        ...


class LocalPlace:
    """A record in a file. Changes are made under a file lock, which the system releases when the process dies."""

    def __init__(self, path: Path):
        self._path = path

    def read(self) -> bytes | None:
        """See `LockPlace`."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def create(self, record: bytes) -> bool:
        """See `LockPlace`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._change(lambda found: found is None, record)

    def replace(self, old: bytes, new: bytes) -> bool:
        """See `LockPlace`."""
        return self._change(lambda found: found == old, new)

    def remove(self) -> None:
        """See `LockPlace`."""
        self._path.unlink(missing_ok=True)

    def _change(self, may: Callable[[bytes | None], bool], record: bytes) -> bool:
        with self._path.with_name(f".{self._path.name}.guard").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not may(self.read()):
                return False
            partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            partial.write_bytes(record)
            os.replace(partial, self._path)
            return True


class RunLock:
    """Holds a directory for this process while open; a context manager. The process may take it again; the outermost counts.

    Args:
      name: what is held, as the user knows it (a directory, a bucket's address).
      place: where the record is kept.
      key: under which `of` finds it while it is held.
      sleep: waits this many seconds.
      lost: called when another process has taken the lock, which happens if this one was suspended for a minute. By
        default this process ends at once, because its files would be mixed with those of the other one.
    """

    def __init__(
        self,
        name: str,
        place: LockPlace,
        key: str = "",
        sleep: Callable[[float], Any] = time.sleep,
        lost: Callable[[], Any] = lambda: os._exit(2),
    ):
        self._name, self._place, self._key, self._sleep, self._lost = name, place, key, sleep, lost
        self._owner, self._record = Owner.here(), b""
        self._depth, self._done = 0, threading.Event()

    @classmethod
    def of(cls, folder: str | Path, name: str = NAME) -> RunLock:
        """The lock of a local directory, or of a part of it by another `name`; always the same object while it is held."""
        path = Path(folder).resolve() / name
        return _held.get(str(path)) or cls(str(path.parent), LocalPlace(path), str(path))

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
          DirectoryInUse: another process holds it; the message names it.
        """
        if self._depth == 0:
            self._take()
            _held[self._key or self._name] = self
            self._done.clear()
            threading.Thread(target=self._beat, name="run lock", daemon=True).start()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._done.set()
        _held.pop(self._key or self._name, None)
        if self._is_own(self._place.read()):
            self._place.remove()

    def _is_own(self, record: bytes | None) -> bool:
        found = Owner.read(record)
        return found is not None and found.token == self._owner.token

    def _take(self) -> None:
        self._record = self._owner.encode()
        while not self._place.create(self._record):
            found = self._place.read()
            if found is None:
                continue  # Removed in this moment.
            owner = Owner.read(found)
            if owner is not None and not self._is_dead(owner):
                raise DirectoryInUse(
                    f"{self._name} is in use by process {owner.pid} on {owner.host} since {owner.since} ({owner.command}): "
                    "wait for it or stop it, or give another --workdir"
                )
            if self._place.replace(found, self._record):
                return

    def _is_dead(self, owner: Owner) -> bool:
        if owner.host == self._owner.host:
            # Without /proc every process looks alike; then only a pid that is free is known to be gone.
            return _born(owner.pid) != owner.boot or owner.pid == self._owner.pid
        print(
            f"{self._name} was in use on {owner.host} (process {owner.pid}, since {owner.since}): waiting up to "
            f"{_SILENT_S:.0f} s for a sign of life",
            file=sys.stderr,
        )
        # Beats are compared with each other, not with a clock: the hosts' clocks may differ.
        for _ in range(round(_SILENT_S / _BEAT_S)):
            self._sleep(_BEAT_S)
            now = Owner.read(self._place.read())
            if now is None or now.token != owner.token:
                # Gone, or taken by another process that started at the same time: the caller looks again.
                return now is None
            if now.beat != owner.beat:
                return False
        return True

    def _beat(self) -> None:
        while not self._done.wait(_BEAT_S):
            self._owner = dataclasses.replace(self._owner, beat=self._owner.beat + 1)
            record = self._owner.encode()
            try:
                # Another record of this process is one whose write failed for lack of a reply only.
                present = record if self._place.replace(self._record, record) else self._place.read()
                if present is None or not self._is_own(present):
                    print(
                        f"error: {self._name} was taken by another process while this one stood still: this one ends, so that "
                        "they do not mix; the other one goes on from the last checkpoint",
                        file=sys.stderr,
                        flush=True,
                    )
                    self._lost()
                    return
            except (OSError, StorageError) as error:
                print(f"the lock of {self._name} could not be renewed: {error}", file=sys.stderr)
                continue
            self._record = present


def _born(pid: int) -> str:
    """The process's start and the machine's boot; "" if there is no such process. A reused pid has another start."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        # The name in parentheses may contain spaces; the start time is the 20th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else f"{boot}/{fields[19]}"
    except FileNotFoundError:
        return _exists(pid)


def _exists(pid: int) -> str:
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"  # It belongs to another user.
    return "alive"
