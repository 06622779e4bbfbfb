"""JSON from files that others wrote: what it does not define, or what Python cannot hold, is a `DataError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mmsearch_jax.core.errors import DataError


def record(text: str | bytes, put_back: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value of a JSON text that is a record, which may be anything but null: None stands for a blank line.

    Raises:
      DataError: as `loads`, or it is null.
    """
    made = loads(text, put_back)
    if made is None:
        raise DataError("null where a row should be")
    return made


def loads(text: str | bytes, put_back: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value of a JSON text.

    Args:
      put_back: replaces each object.

    Raises:
      DataError: it is not JSON or not UTF-8, has a key twice in an object, or is nested too deeply.
    """

    def single(pairs: list[tuple[str, Any]]) -> Any:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"the key {twice!r} occurs twice in one object: which value is meant?")
        return made if put_back is None else put_back(made)

    try:
        return json.loads(text, object_pairs_hook=single)
    except ValueError as error:
        raise DataError(f"not JSON ({error})") from error
    except RecursionError as error:
        raise DataError("not readable JSON (nested too deeply)") from error
