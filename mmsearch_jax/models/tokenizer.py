"""Loads a checkpoint's tokenizer. transformers is slow to import, so only this function imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import CheckpointError


def load_tokenizer(folder: str | Path) -> Any:
    """The fast tokenizer of a checkpoint folder (`tokenizer.json`).

    Raises:
      CheckpointError: the folder has no tokenizer, or the tokenizer cannot be read.
    """
    import tokenizers

    path = Path(folder) / "tokenizer.json"
    if path.is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"cannot read {path}: {error}") from error
    require_tokenizer(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def require_tokenizer(folder: str | Path) -> None:
    """Checks that a checkpoint folder has a tokenizer; reads nothing.

    Raises:
      CheckpointError: it has none.
    """
    if not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise CheckpointError(f"no tokenizer.json in {folder}: copy the tokenizer's files from the base model's folder")
