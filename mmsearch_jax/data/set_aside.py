"""The rows that a job does not use, with the reasons: counted, logged in the work directory, and limited in number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mmsearch_jax.core.characters import whole_characters
from mmsearch_jax.core.errors import DataError

FOLDER = "set_aside"
_SHOWN = 3


class Unused(NamedTuple):
    """A row that is not used: its number in its file from 1, its id ("" if it has none), and the reason."""

    row: int
    id: str
    reason: str


class SetAside:
    """The ledger of one job.

    Args:
      workdir: the log is `workdir`/set_aside/NAME.jsonl, or NAME.PROCESS.jsonl for other processes than the first.
      name: of the job.
      source: name of the rows, for messages.
      total: number of rows.
      limit: the share of unusable rows above which the job stops.
      setting: name of the setting with the limit, for messages.
      numbers: of the rows in their file from 1, by id.
      process: index of this process.

    Attributes:
      earlier: ids in the logs of an earlier start of the job. Such a row may have been repaired: judge it again, and fully.
      late: number of rows that were added after the start.
    """

    def __init__(
        self,
        workdir: Path,
        name: str,
        source: str,
        total: int,
        limit: float,
        setting: str,
        numbers: Mapping[str, int] = MappingProxyType({}),
        *,
        process: int = 0,
    ):
        self._folder, self._source, self._total, self._limit = workdir / FOLDER, source, total, limit
        self._setting, self._numbers = setting, numbers
        self.path = self._folder / (f"{name}.{process}.jsonl" if process else f"{name}.jsonl")
        logs = [*self._folder.glob(f"{name}.jsonl"), *self._folder.glob(f"{name}.*.jsonl")]
        self.earlier = {unused.id for log in logs for unused in _read(log)}
        self._unused: dict[str, Unused] = {}
        self.late = 0

    def __len__(self) -> int:
        return len(self._unused)

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._unused

    def start(self, unused: list[Unused], *, write: bool = True) -> None:
        """Takes the rows that were judged unusable at the start, and begins the log with them.

        Args:
          write: False on processes that would only repeat what another one logs.

        Raises:
          DataError: there are more than the limit allows; names the first ones with their reasons.
        """
        self._unused = {each.id or f"\0{each.row}": each for each in unused}
        self.late = 0
        if unused or self.path.is_file():
            self._folder.mkdir(exist_ok=True, parents=True)
            self.path.write_text("".join(map(_line, unused if write else ())), encoding="utf-8")
        self._check()

    def add(self, row_id: str, reason: str) -> None:
        """Sets a further row aside.

        Raises:
          DataError: that makes more than the limit allows.
        """
        if row_id in self._unused:
            return
        unused = Unused(self._numbers.get(row_id, 0), row_id, reason)
        self._unused[row_id] = unused
        self.late += 1
        self._folder.mkdir(exist_ok=True, parents=True)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(_line(unused))
        self._check()

    def told(self) -> str:
        """How many rows are set aside, the first ones with their reasons, and where the others are; "" if there are none."""
        if not self._unused:
            return ""
        shown = [
            f"row {each.row or '?'}{f' ({each.id})' if each.id else ''}: {each.reason}"
            for each in list(self._unused.values())[:_SHOWN]
        ]
        more = f"; all of them: {self.path}" if len(self) > _SHOWN else f" ({self.path})"
        return f"{len(self)} of {self._total} rows of {self._source} cannot be used: {'; '.join(shown)}{more}"

    def _check(self) -> None:
        if self._unused and len(self) > self._limit * self._total:
            raise DataError(
                f"{self.told()}. That is more than {self._setting} = {self._limit:g} of the rows: repair them, or raise the "
                "limit"
            )


class SkippedLog:
    """The log of rows that a stream of samples skips, each once, however often it is drawn.

    Args:
      workdir, name, process: see `SetAside`.
    """

    def __init__(self, workdir: Path, name: str, process: int = 0):
        self.path = workdir / FOLDER / (f"{name}.{process}.jsonl" if process else f"{name}.jsonl")
        self._reasons = {unused.reason for unused in _read(self.path)} if self.path.is_file() else set[str]()

    def add(self, reason: str) -> None:
        """Logs a reason, which names the row."""
        if reason in self._reasons:
            return
        self._reasons.add(reason)
        self.path.parent.mkdir(exist_ok=True, parents=True)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(_line(Unused(0, "", reason)))


def _line(unused: Unused) -> str:
    return json.dumps(whole_characters(unused._asdict()), ensure_ascii=False) + "\n"


def _read(file: Path) -> Iterator[Unused]:
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield Unused(**json.loads(line))
        except (ValueError, TypeError):
            # The last line of a killed run may be cut.
            continue
