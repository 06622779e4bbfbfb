"""The safetensors files of a checkpoint folder: names, shapes and parts of tensors, read on request.

Both weight-name layouts of transformers are recognised; names are reported in the newer one. The files are read, not mapped:
mapped pages count as memory of the process until the file is unmapped, and one host's part of a tensor touches nearly all of
them. Only the requested part and one block are in memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models.policy_folder import INDEX, SINGLE, shards, weights_layout

_OLD_LAYOUT = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(layers|embed_tokens|norm)\."), r"model.language_model.\1."),
)
_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
_BLOCK_BYTES = 64 * 2**20


class _Tensor(NamedTuple):
    file: io.FileIO
    kind: str
    shape: tuple[int, ...]
    start: int


class TensorFiles:
    """An open checkpoint folder; use it as a context manager.

    Raises:
      CheckpointError: a file is missing, or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._stack = contextlib.ExitStack()
        self._tensors: dict[str, _Tensor] = {}
        for path in weight_files(self.folder):
            try:
                # The library checks header, offsets and length. It maps the file, but reads only the header.
                with safe_open(str(path), framework="numpy"):
                    pass
                file = self._stack.enter_context(path.open("rb", buffering=0))
                self._tensors |= _tensors(file)
            except (SafetensorError, OSError) as error:
                self._stack.close()
                raise _damaged(path, error) from error

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensors.clear()
        self._stack.close()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def dtype(self, name: str) -> np.dtype:
        """The stored dtype of a tensor.

        Raises:
          CheckpointError: it is not float32, float16 or bfloat16.
        """
        file, kind, _, _ = self._tensors[name]
        if kind not in _DTYPES:
            raise CheckpointError(
                f"{name} in {file.name} is stored as {kind}: take the unquantised checkpoint ({', '.join(_DTYPES)})"
            )
        return _DTYPES[kind]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a tensor into new memory.

        Args:
          index: a slice of step 1 for each leading dim; the remaining dims are read whole.

        Raises:
          CheckpointError: the file is damaged.
        """
        file, _, shape, start = self._tensors[name]
        dtype = self.dtype(name)
        spans = [range(size)[cut] for cut, size in zip(index, shape, strict=False)]
        spans += [range(size) for size in shape[len(spans) :]]
        rows, inner = (spans[0], spans[1:]) if spans else (range(1), [])
        part = np.empty([len(span) for span in spans], dtype)
        row_items = math.prod(shape[1:])
        step = max(1, _BLOCK_BYTES // max(1, row_items * dtype.itemsize))
        try:
            file.seek(start + rows.start * row_items * dtype.itemsize)
            if part.size == len(rows) * row_items:
                _fill(file, part)
                return part
            cut = (slice(None), *(slice(span.start, span.stop) for span in inner))
            for first in range(0, len(rows), step):
                block = np.empty((min(step, len(rows) - first), *shape[1:]), dtype)
                _fill(file, block)
                part[first : first + len(block)] = block[cut]
        except OSError as error:
            raise _damaged(Path(file.name), error) from error
        return part


def _tensors(file: io.FileIO) -> dict[str, _Tensor]:
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        _new_name(name): _Tensor(file, entry["dtype"], tuple(entry["shape"]), 8 + size + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def _fill(file: io.FileIO, array: np.ndarray) -> None:
    """Fills a contiguous array with the next bytes of the file."""
    # View as bytes: bfloat16 arrays do not support the buffer protocol.
    buffer = array.reshape(-1).view(np.uint8).data
    while len(buffer):
        count = file.readinto(buffer)
        if not count:
            raise OSError("the file ends too early")
        buffer = buffer[count:]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder: one, or those that its index lists.

    Raises:
      CheckpointError: a file is missing, or the index is damaged.
    """
    layout = weights_layout(folder)
    files = sorted(folder / name for name in (shards(folder) if layout == INDEX else (SINGLE,)))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}: the download is incomplete, or the folder is not a checkpoint"
        )
    return files


def _new_name(name: str) -> str:
    for pattern, replacement in _OLD_LAYOUT:
        name = pattern.sub(replacement, name)
    return name


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is damaged ({error}): download it again")
