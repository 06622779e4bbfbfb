"""The record of a run: an append-only file with one line of JSON per finished seed. A killed run resumes from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.rows import ConversationTurn
from mmsearch_jax.datagen.outcome import TRANSIENT, SeedOutcome


@dataclasses.dataclass(frozen=True)
class JournalEntry:
    """A finished seed. Only a kept one has turns and labels; `why` says why another was dropped."""

    id: str
    outcome: SeedOutcome
    why: str = ""
    turns: tuple[ConversationTurn, ...] = ()
    category: str = ""
    search_required: bool | None = None
    measured_by: str = ""
    """The source of `search_required`: "target" (measured), "seed", or "teacher" (whether it searched)."""


def require_same_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Compares a run with the one that began the journal at `path`, if there is one; changes nothing.

    Raises:
      DataError: a setting differs.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        first = lines.readline()
    try:
        made_with = json.loads(first)["settings"]
    except (ValueError, KeyError, TypeError):
        return  # Damaged or empty: the journal says so when it is opened.
    changed = [key for key in settings if key in made_with and made_with[key] != json.loads(json.dumps(settings[key]))]
    if changed:
        raise DataError(
            f"{path} was made with other values of {', '.join(changed)}: use another --workdir, or restore the values"
        )


class Journal:
    """The journal file. An incomplete last line, left by a kill, is removed.

    Raises:
      DataError: another line is damaged, or the journal belongs to a run with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self.entries, self.spent = path, dict[str, JournalEntry](), dict[str, int]()
        require_same_settings(path, settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            with path.open("r+b") as file:
                file.truncate(sum(map(len, lines)))
        for number, line in enumerate(lines, 1):
            try:
                self._read(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number} is damaged ({error}): remove the line to resume") from error
        self._file = path.open("a", encoding="utf-8")
        if not lines:
            self._append({"settings": settings})

    def write(self, entry: JournalEntry, spent: dict[str, int]) -> None:
        """Appends a finished seed and the amounts spent so far."""
        self.entries[entry.id], self.spent = entry, spent
        self._append({**dataclasses.asdict(entry), "spent": spent})

    def done(self, name: str) -> bool:
        """Whether a seed is finished."""
        entry = self.entries.get(name)
        return entry is not None and entry.outcome not in TRANSIENT

    def close(self, spent: dict[str, int]) -> None:
        """Records the amounts spent, including those of unfinished seeds, and closes the file."""
        if spent != self.spent:
            self._append({"spent": spent})
        self._file.close()

    def _append(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def _read(self, record: dict[str, Any]) -> None:
        if "settings" in record:
            return
        self.spent = record.pop("spent")
        if not record:
            return
        turns = tuple(
            ConversationTurn(t["text"], t["observation"], tuple(t["box"]) if t["box"] else None)
            for t in record.pop("turns")
        )
        outcome = SeedOutcome(record.pop("outcome"))
        self.entries[record["id"]] = JournalEntry(outcome=outcome, turns=turns, **record)
