"""Reads pickled caches of plain values (FVQA's image-search cache) without executing anything in them.

A pickle is a program: it may name any function and call it. This reader refuses every name, so that a pickle can build only
dicts, lists, strings and numbers.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def load_plain(path: str | Path) -> Any:
    """The plain values of a pickle file.

    Raises:
      DataError: the file is missing or damaged, or contains more than plain values.
    """
    try:
        with Path(path).open("rb") as file:
            return _PlainUnpickler(file).load()
    except FileNotFoundError as error:
        raise DataError(f"no pickle at {path}: give the path of a cache") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is refused ({error}): only plain values are read; export it as JSON instead"
        ) from error
    except (EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError, OverflowError) as error:
        raise DataError(f"{path} is damaged or not a pickle ({type(error).__name__}): download it again") from error


def image_search_cache(path: str | Path) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """FVQA's cache: for each data id the results of the image search, or the reason why its entry is unusable.

    Yields:
      (data_id, {"data_id", "results": [{"title", "image_url"}]}).

    Raises:
      DataError: as in `load_plain`, or the pickle is not a dict.
    """
    entries = load_plain(path)
    if not isinstance(entries, dict):
        raise DataError(f"{path} contains a {type(entries).__name__}, expected a dict by data id")
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            yield str(name), DataError(f"a {type(entry).__name__}, expected an object")
            continue
        titles = entry.get("tool_returned_web_title_list") or []
        urls = entry.get("tool_returned_images_urls") or [None] * len(titles)
        if not isinstance(titles, list) or not isinstance(urls, list) or len(titles) != len(urls):
            yield str(name), DataError("titles and image URLs are not lists of equal length")
            continue
        if not all(_is_text(value) for value in (str(name), *titles, *urls)):
            yield str(name), DataError("titles and image URLs must be texts in UTF-8")
            continue
        results = [{"title": title, "image_url": url} for title, url in zip(titles, urls, strict=True)]
        yield str(name), {"data_id": str(name), "results": results}


def _is_text(value: Any) -> bool:
    """Whether a file of UTF-8 can hold the value; a pickle may contain half a character."""
    return value is None or (isinstance(value, str) and value.encode(errors="replace").decode() == value)
