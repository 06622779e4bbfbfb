"""The safetensors files of a checkpoint folder: names, shapes and parts of tensors, read when asked for.

Both weight-name layouts that transformers has used are known; names are given in the newer one.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from mmsearch_jax.errors import CheckpointError

_OLD_LAYOUT = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(layers|embed_tokens|norm)\."), r"model.language_model.\1."),
)
_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}


class TensorFiles:
    """An open checkpoint folder; use it as a context manager.

    Raises:
      CheckpointError: a file is missing, or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._stack = contextlib.ExitStack()
        self._slices: dict[str, tuple[Path, Any]] = {}
        for file in _weight_files(self.folder):
            try:
                opened = self._stack.enter_context(safe_open(str(file), framework="numpy"))
                for name in opened.keys():  # noqa: SIM118  (the handle is no mapping)
                    self._slices[_new_name(name)] = (file, opened.get_slice(name))
            except (SafetensorError, OSError) as error:
                self._stack.close()
                raise _damaged(file, error) from error

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slices.clear()
        self._stack.close()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: tuple(tensor.get_shape()) for name, (_, tensor) in self._slices.items()}

    def dtype(self, name: str) -> np.dtype:
        """How a tensor is stored.

        Raises:
          CheckpointError: as something else than float32, float16 or bfloat16.
        """
        file, tensor = self._slices[name]
        kind = tensor.get_dtype()
        if kind not in _DTYPES:
            raise CheckpointError(
                f"{name} in {file} is stored as {kind}: take the unquantised checkpoint ({', '.join(_DTYPES)})"
            )
        return _DTYPES[kind]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor.

        Raises:
          CheckpointError: the file is damaged.
        """
        file, tensor = self._slices[name]
        try:
            return tensor[index]
        except (SafetensorError, OSError) as error:
            raise _damaged(file, error) from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise _damaged(index, error) from error
        files = sorted(folder / name for name in names)
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}: the download is not complete, or it is no checkpoint"
        )
    return files


def _new_name(name: str) -> str:
    for pattern, replacement in _OLD_LAYOUT:
        name = pattern.sub(replacement, name)
    return name


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is damaged ({error}): fetch it again")
