"""A small invented corpus file, a tiny sentence model in ONNX, and an endpoint that embeds by counting letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tokenizers
from aiohttp import web
from onnx import TensorProto, helper, numpy_helper

from tests.tools_server.small_corpus import PAGES

DIM = 16


def write_passages(file: Path, pages: Sequence[Any] = PAGES) -> Path:
    """Writes pages as JSON lines."""
    lines = [{"id": str(i), "title": page.title, "url": page.url, "text": page.text} for i, page in enumerate(pages)]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return file


def write_towns(file: Path, count: int) -> Path:
    """Writes `count` passages, each on another town."""
    with file.open("w", encoding="utf-8") as out:
        for i in range(count):
            text = f"The mayor of this place is Mr. m{i}x. It lies by river r{i % 7} and has a market."
            out.write(json.dumps({"id": str(i), "title": f"Town t{i}x", "text": text}) + "\n")
    return file


def write_model(folder: Path, seed: int = 0) -> np.ndarray:
    """Writes a model whose hidden states are its word embeddings; returns these, float32 [vocabulary, DIM]."""
    folder.mkdir(parents=True)
    known = ["[PAD]", "[UNK]", "capital", "of", "velmora", "tower", "masons", "anthem", "hills", "currency", "tall"]
    words = {word: i for i, word in enumerate(known)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(seed).standard_normal((len(known), DIM)).astype(np.float32)
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, DIM])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    return table


def letters(text: str) -> np.ndarray:
    """The count of each letter plus a small constant, float32 [26]."""
    return np.array([text.lower().count(chr(97 + i)) + 0.1 for i in range(26)], np.float32)


class Endpoint:
    """An OpenAI-compatible endpoint. `script` holds its first replies: a status, or a body to send instead."""

    def __init__(self, *script: Any):
        self.script, self.asked = list(script), []

    async def __aenter__(self) -> Endpoint:
        app = web.Application()
        app.router.add_post("/v1/embeddings", self._embed)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((dict(request.headers), body))
        act = self.script.pop(0) if self.script else None
        if isinstance(act, int):
            return web.json_response({"error": "scripted"}, status=act)
        if act is not None:
            return web.json_response(act)
        made = [{"index": i, "embedding": letters(text).tolist()} for i, text in enumerate(body["input"])]
        return web.json_response({"data": made[::-1]})
