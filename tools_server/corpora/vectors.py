"""Nearest unit vectors on disk, by usearch: exact search for few, a graph (HNSW) for many. Both files are memory-mapped.

The graph finds most of the nearest, not all. It is built in memory, with about (2 x dim + 150) bytes per vector.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from mmsearch_jax.core.errors import ConfigError
from tools_server.corpora.staging import Stage

EXACT_UP_TO = 100_000
FLAT_FILE, GRAPH_FILE = "vectors.f16", "vectors.usearch"
_CHUNK = 8192
_EXPANSION = 128
"""Candidates that a graph search keeps: more candidates find more of the nearest and take longer."""


@dataclasses.dataclass(frozen=True)
class VectorInfo:
    """The manifest's record of vectors.

    Attributes:
      count, dim: of the vectors; there is at least one.
      exact: searched exactly (`FLAT_FILE`), else by the graph (`GRAPH_FILE`).
      embedder: see `embedders.EmbedderSpec`; empty for pictures.
    """

    count: int
    dim: int
    exact: bool
    embedder: dict[str, Any] = dataclasses.field(default_factory=dict)


def version() -> str:
    """The library's version, as the manifest records it.

    Raises:
      ConfigError: it is not installed.
    """
    _library()
    return f"usearch {importlib.metadata.version('usearch')}"


class FlatVectors:
    """The file to which a build appends; an interrupted build resumes after the last complete vector."""

    def __init__(self, folder: Path, dim: int):
        self._path, self.dim = folder / FLAT_FILE, dim
        self._file = self._path.open("ab")
        self.count = self._file.tell() // (2 * dim)
        self._file.truncate(self.count * 2 * dim)

    def add(self, vectors: np.ndarray) -> None:
        """Appends vectors [N, dim] of unit length."""
        assert vectors.shape[1:] == (self.dim,), vectors.shape
        self._file.write(vectors.astype(np.float16).tobytes())
        self._file.flush()
        self.count += len(vectors)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def finish(stage: Stage, info: VectorInfo, show_progress: bool = True) -> None:
    """Builds the graph of the vectors that a stage's `FlatVectors` wrote, unless they are searched exactly."""
    if info.exact:
        return
    stage.once("graph", [GRAPH_FILE], lambda: _build_graph(stage.folder, info, show_progress))
    (stage.folder / FLAT_FILE).unlink(missing_ok=True)  # the graph holds the vectors, too


def _build_graph(folder: Path, info: VectorInfo, show_progress: bool) -> None:
    flat = _flat(folder, info)
    # bfloat16: the graph is built more than 50 % faster than with float16, with the same recall.
    graph = _library().Index(ndim=info.dim, metric="ip", dtype="bf16")
    with tqdm.tqdm(total=info.count, desc="graph", unit="vector", disable=not show_progress) as bar:
        for first in range(0, info.count, _CHUNK):
            part = np.asarray(flat[first : first + _CHUNK], np.float32)
            graph.add(np.arange(first, first + len(part)), part)
            bar.update(len(part))
    graph.save(str(folder / GRAPH_FILE))


class Vectors:
    """Searches vectors. Safe to use from several threads."""

    def __init__(self, folder: Path, info: VectorInfo):
        self._info, self._library = info, _library()
        # Every call uses the graph's scratch space of thread 0: two calls at the same time would share it.
        self._lock = threading.Lock()
        if info.exact:
            self._flat = _flat(folder, info)
        else:
            self._graph = self._library.Index.restore(str(folder / GRAPH_FILE), view=True)
            self._graph.expansion_search = _EXPANSION

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vectors.

        Args:
          queries: float32 [Q, dim], of unit length.
          count: results per query; fewer if there are fewer vectors.

        Returns:
          Numbers int64 [Q, count] and cosines float32 [Q, count], nearest first.
        """
        count = min(count, self._info.count)
        if self._info.exact:
            asked = queries.astype(np.float16)
            found = self._library.search(self._flat, asked, count, "ip", exact=True)
        else:
            with self._lock:
                found = self._graph.search(np.asarray(queries, np.float32), count, threads=1)
        shape = (len(queries), -1)
        return found.keys.reshape(shape).astype(np.int64), 1.0 - found.distances.reshape(shape).astype(np.float32)


def _flat(folder: Path, info: VectorInfo) -> np.ndarray:
    return np.memmap(folder / FLAT_FILE, np.float16, "r", shape=(info.count, info.dim))


def _library() -> Any:
    with contextlib.suppress(ImportError):
        # Before usearch: in the other order the import ends the process (onnxruntime 1.32, usearch 2.26).
        import onnxruntime  # noqa: F401
    try:
        import usearch.index
    except ImportError as error:
        raise ConfigError("vectors need usearch: pip install 'mmsearch-jax[dense]'") from error
    return usearch.index
