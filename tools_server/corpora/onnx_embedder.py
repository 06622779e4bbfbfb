"""A sentence model on this machine's CPU: ONNX Runtime and the model's own tokenizer, no torch.

Reads a folder in the layout of sentence-transformers: `model.onnx` (or `onnx/model.onnx`), `tokenizer.json`, and, if present,
`1_Pooling/config.json` and `sentence_bert_config.json`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch_jax.core.errors import ConfigError
from tools_server.corpora.embedders import unit

_MAX_TOKENS = 512
"""BERT's length, used if the folder gives none."""
_TOGETHER = 16


class OnnxEmbedder:
    """Mean (or first-token) pooling over the last hidden state, as the folder says, scaled to unit length.

    Raises:
      ConfigError: a file is missing or damaged, or ONNX Runtime is not installed.
    """

    batch, concurrency = 64, 1

    def __init__(self, folder: Path):
        try:
            import onnxruntime
            import tokenizers
        except ImportError as error:
            raise ConfigError(f"{error.name} is not installed: pip install 'mmsearch-jax[dense]'") from error
        model = next((path for path in (folder / "model.onnx", folder / "onnx" / "model.onnx") if path.is_file()), None)
        if model is None or not (folder / "tokenizer.json").is_file():
            raise ConfigError(
                f"no sentence model at {folder}: name a folder with model.onnx (or onnx/model.onnx) and tokenizer.json, "
                "or the address of an endpoint such as http://localhost:8000/v1"
            )
        try:
            # Some models give their length in the tokenizer, some in a file of their own.
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            max_tokens = _read(folder / "sentence_bert_config.json").get("max_seq_length") or _MAX_TOKENS
            self._tokenizer.enable_truncation(int(max_tokens))
            self._tokenizer.no_padding()
            self._first_token = bool(_read(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"))
            options = onnxruntime.SessionOptions()
            # Waiting threads must not occupy the cores that the rest of the server needs.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
        except Exception as error:  # both libraries raise plain Exceptions
            raise ConfigError(f"the sentence model at {folder} cannot be read: {error}") from error
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self.identity: dict[str, Any] = {"sha256": hashlib.sha256(model.read_bytes()).hexdigest()}

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed`."""
        return await asyncio.to_thread(self._embed, texts)

    async def close(self) -> None:
        """Nothing to free."""

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        encoded = [entry.ids for entry in self._tokenizer.encode_batch(list(texts))]
        # Texts of similar length are batched together, so that there is little padding.
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
        parts = [
            self._run([encoded[row] for row in order[first : first + _TOGETHER]])
            for first in range(0, len(order), _TOGETHER)
        ]
        return unit(np.concatenate(parts)[np.argsort(order)])

    def _run(self, encoded: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of N texts -> float32 [N, dim]."""
        mask = np.zeros((len(encoded), max(1, *map(len, encoded))), np.int64)
        ids = np.zeros_like(mask)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = np.asarray(self._session.run(None, {name: given[name] for name in self._inputs})[0])  # [N, L, dim]
        if self._first_token:
            return hidden[:, 0]
        weight = mask[..., None].astype(np.float32)
        return (hidden * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
