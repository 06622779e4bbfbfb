"""A cache as a file of JSON lines: exported from one store and imported into another."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.search_api import SearchReply
from tools_server.cache.answers import is_doubtful, key_of
from tools_server.cache.store import CacheEntry, Store

DOUBTFUL = "doubtful"


async def export_entries(store: Store, out: Path) -> int:
    """Writes every answer to a file, one JSON object a line, and returns how many.

    The file appears once it is complete. Keys are not written: they are computed from the requests.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(out.name + ".part")
    count = 0
    with draft.open("w", encoding="utf-8") as lines:
        async for _, entry in store.entries():
            lines.write(json.dumps(dataclasses.asdict(entry), ensure_ascii=False) + "\n")
            count += 1
    draft.rename(out)
    return count


async def import_entries(store: Store, path: Path) -> int:
    """Puts the answers of an exported file into a store and returns how many. An answer that exists already is replaced.

    Raises:
      DataError: no such file, or a line is not an answer; names the line. The lines before it are imported.
    """
    count = 0
    for entry in _read(path):
        await store.put(key_of(entry.request), entry)
        count += 1
    return count


async def count_entries(store: Store) -> collections.Counter[str]:
    """How many answers a store holds, by tool; `DOUBTFUL` counts those of `answers.is_doubtful` once more."""
    counts: collections.Counter[str] = collections.Counter()
    async for _, entry in store.entries():
        counts[str(entry.request.get("tool", "other"))] += 1
        if is_doubtful(entry.reply):
            counts[DOUBTFUL] += 1
    return counts


def _read(path: Path) -> Iterator[CacheEntry]:
    if not path.is_file():
        raise DataError(f"no exported cache at {path}: make one with `mmsearch cache export`")
    # As bytes: only a line feed ends a line, not the other line separators of Unicode.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _entry(json.loads(line))
            except (ValueError, RecursionError, DataError) as error:
                raise DataError(f"{path}:{number}: not a kept answer ({error}): export the cache again") from error


def _entry(record: Any) -> CacheEntry:
    if not isinstance(record, Mapping):
        raise DataError(f"expected a JSON object, got {type(record).__name__}")
    request, reply, stored_s = (record.get(name) for name in ("request", "reply", "stored_s"))
    if not isinstance(request, dict) or not isinstance(stored_s, int | float):
        raise DataError("'request' must be an object and 'stored_s' a number")
    return CacheEntry(request, SearchReply.from_json(reply).to_json(), float(stored_s))
