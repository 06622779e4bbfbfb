"""What every embedder does: texts to unit vectors; and the record that says which embedder a corpus has.

A folder holds a sentence model in ONNX, as Hugging Face repositories ship it; an address is an OpenAI-compatible `/v1`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tools_server.failures import SearchFailure


@dataclasses.dataclass(frozen=True)
class EmbedderSpec:
    """Which embedder, as the manifest keeps it.

    Attributes:
      where: a folder, or an address up to and with "/v1".
      model: as an endpoint calls it; "" for a folder.
      key_env: environment variable with an endpoint's key; "" for none.
      query_prefix, passage_prefix: put before each text; E5 wants "query: " and "passage: ".
    """

    where: str
    model: str = ""
    key_env: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""

    @property
    def is_endpoint(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.where.startswith(("http://", "https://"))


class Embedder(Protocol):
    """Makes vectors.

    Attributes:
      batch: texts to be given at one time.
      concurrency: batches that gain by being given side by side.
      identity: what tells this model from others; {} where that cannot be known.
    """

    batch: int
    concurrency: int
    identity: dict[str, Any]

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> float32 [N, dim] of unit length, in their order.

        Raises:
          SearchFailure: no vectors.
        """
        ...

    async def close(self) -> None:
        """Frees what it holds."""
        ...


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 [N, dim], scaled to unit length.

    Raises:
      SearchFailure: a vector has no direction.
    """
    vectors = np.asarray(vectors, np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise SearchFailure("upstream_error", "the embedder gave a vector that is zero or not finite")
    return vectors / length
