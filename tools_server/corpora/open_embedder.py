"""Opens the embedder that a record describes."""

from __future__ import annotations

from pathlib import Path

from tools_server.corpora.embedders import Embedder, EmbedderSpec
from tools_server.corpora.embedding_endpoint import EmbeddingEndpoint
from tools_server.corpora.onnx_embedder import OnnxEmbedder


def open_embedder(spec: EmbedderSpec, deadline_s: float) -> Embedder:
    """The embedder of a spec. `deadline_s` bounds one batch of an endpoint, retries included.

    Raises:
      ConfigError: no such folder, a model is missing in it, an endpoint without its model's name or key.
    """
    return EmbeddingEndpoint(spec, deadline_s) if spec.is_endpoint else OnnxEmbedder(Path(spec.where))
