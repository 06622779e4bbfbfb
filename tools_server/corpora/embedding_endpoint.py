"""Any OpenAI-compatible `/v1/embeddings` (vLLM, SGLang, TEI, Infinity, hosted): batches, retries within one deadline."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tenacity

from mmsearch_jax.core.errors import ConfigError
from tools_server.backends.upstream import Sessions, UpstreamRequest, call
from tools_server.corpora.embedders import EmbedderSpec, unit
from tools_server.failures import SearchFailure

_NAME = "the embedder"


class EmbeddingEndpoint:
    """Asks an endpoint for vectors.

    Args:
      spec: an address.
      deadline_s: seconds for one batch, retries included.

    Raises:
      ConfigError: the model has no name, or the key is not in the environment.
    """

    batch, concurrency = 64, 8

    def __init__(self, spec: EmbedderSpec, deadline_s: float):
        if not spec.model:
            raise ConfigError(f"the embedder at {spec.where} needs the name of its model: --dense-model NAME")
        self._key = os.environ.get(spec.key_env, "") if spec.key_env else ""
        if spec.key_env and not self._key:
            raise ConfigError(
                f"the embedder's key must be in the environment variable {spec.key_env}, which is not set: export it"
            )
        self._spec, self._deadline_s, self._sessions = spec, deadline_s, Sessions()
        self.identity: dict[str, Any] = {}

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        attempts = tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5.0),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, SearchFailure) and error.passing),
        )
        why: list[str] = []
        try:
            async with asyncio.timeout(self._deadline_s):
                async for attempt in attempts:
                    with attempt:
                        try:
                            return await self._once(texts)
                        except SearchFailure as failure:
                            why.append(failure.message)
                            raise
        except TimeoutError as error:
            last = why[-1] if why else "no answer"
            raise SearchFailure(
                "upstream_timeout", f"{_NAME} gave no vectors in {self._deadline_s:g} s ({last})", passing=True
            ) from error
        raise AssertionError("attempts end by the deadline only")

    async def close(self) -> None:
        """Closes connections."""
        await self._sessions.close()

    async def _once(self, texts: Sequence[str]) -> np.ndarray:
        spec = self._spec
        request = UpstreamRequest(
            "POST",
            f"{spec.where.rstrip('/')}/embeddings",
            {"Authorization": f"Bearer {self._key}"} if self._key else {},
            json={"model": spec.model, "input": list(texts), "encoding_format": "float"},
        )
        reply = await call(self._sessions, request, _NAME, self._key, spec.key_env, lambda status, body: None)
        try:
            entries = sorted(reply["data"], key=lambda entry: entry["index"])
            vectors = np.array([entry["embedding"] for entry in entries], np.float32)
        except (LookupError, TypeError, ValueError) as error:
            raise SearchFailure("upstream_error", f"{_NAME}: the reply has no embeddings", passing=True) from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise SearchFailure("upstream_error", f"{_NAME} gave {len(vectors)} vectors for {len(texts)} texts", True)
        return unit(vectors)
