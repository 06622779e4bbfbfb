"""Reading a JSON object that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import MMSearchError


def json_object(path: Path, error: type[MMSearchError], hint: str = "download it again") -> dict[str, Any]:
    """The object in a file.

    Args:
      error: what is raised if the file cannot be read, is not JSON, or holds no object.
      hint: what to do then; ends the message.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}): {hint}") from problem
    except ValueError as problem:
        raise error(f"{path} cannot be read as JSON ({problem}): {hint}") from problem
    if not isinstance(record, dict):
        raise error(f"{path} is not a JSON object: {hint}")
    return record
