"""The interface of embedders (texts to unit vectors), and the record of a corpus's embedder.

An embedder is a folder with a sentence model in ONNX, as in Hugging Face repositories, or an OpenAI-compatible `/v1` address.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tools_server.failures import SearchFailure


@dataclasses.dataclass(frozen=True)
class EmbedderSpec:
    """An embedder as the manifest records it.

    Attributes:
      where: a folder, or an address up to and with "/v1".
      model: its name at an endpoint; "" for a folder.
      key_env: environment variable with an endpoint's key; "" for none.
      query_prefix, passage_prefix: put before each text; E5 needs "query: " and "passage: ".
    """

    where: str
    model: str = ""
    key_env: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""

    @property
    def is_endpoint(self) -> bool:
        """Whether it is an endpoint."""
        return self.where.startswith(("http://", "https://"))


class Embedder(Protocol):
    """Makes vectors.

    Attributes:
      batch: texts per call.
      concurrency: calls at the same time that increase throughput.
      identity: identifies the model; {} if it cannot be identified.
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
        """Frees resources."""
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
