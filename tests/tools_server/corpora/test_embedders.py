"""Embedders: a sentence model in ONNX against numpy, and a scripted HTTP endpoint that is slow, wrong or refuses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch_jax.core.errors import ConfigError, DataError
from tests.tools_server.corpora.small_index import Endpoint, letters, write_model, write_towns
from tools_server.corpora.embedders import EmbedderSpec
from tools_server.corpora.onnx_embedder import OnnxEmbedder
from tools_server.corpora.open import open_index
from tools_server.corpora.open_embedder import open_embedder
from tools_server.corpora.passage_build import build_index
from tools_server.failures import SearchFailure


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def ask(texts: list[str], *script: Any, deadline_s: float = 5.0, key_env: str = "") -> tuple[Any, list[Any]]:
    """The endpoint's vectors (or its failure), and the requests that it got."""

    async def go() -> tuple[Any, list[Any]]:
        async with Endpoint(*script) as endpoint:
            embedder = open_embedder(EmbedderSpec(endpoint.url, "small", key_env), deadline_s)
            try:
                return await embedder.embed(texts), endpoint.asked
            except SearchFailure as failure:
                return failure, endpoint.asked
            finally:
                await embedder.close()

    return asyncio.run(go())


def test_a_models_vectors_are_the_mean_of_its_hidden_states_without_padding(tmp_path: Path):
    table = write_model(tmp_path / "m")
    found = asyncio.run(OnnxEmbedder(tmp_path / "m").embed(["masons", "Capital of Velmora", "strange words"]))
    np.testing.assert_allclose(found[0], unit(table[6]), rtol=1e-5)
    np.testing.assert_allclose(found[1], unit(table[[2, 3, 4]].mean(0)), rtol=1e-5)
    np.testing.assert_allclose(found[2], unit(table[1]), rtol=1e-5)
    assert found.dtype == np.float32


def test_a_text_without_a_token_still_has_a_vector_or_a_failure_that_says_so(tmp_path: Path):
    write_model(tmp_path / "m")
    with pytest.raises(SearchFailure, match="zero or not finite"):
        asyncio.run(OnnxEmbedder(tmp_path / "m").embed([""]))


def test_the_folder_says_how_states_are_pooled_and_how_long_a_text_may_be(tmp_path: Path):
    table = write_model(tmp_path / "m")
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    found = asyncio.run(OnnxEmbedder(tmp_path / "m").embed(["capital of velmora"]))
    np.testing.assert_allclose(found[0], unit(table[2]), rtol=1e-5)
    (tmp_path / "m" / "1_Pooling" / "config.json").unlink()
    (tmp_path / "m" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}))
    found = asyncio.run(OnnxEmbedder(tmp_path / "m").embed(["capital of velmora"]))
    np.testing.assert_allclose(found[0], unit(table[[2, 3]].mean(0)), rtol=1e-5)


def test_a_model_in_the_folder_onnx_is_found_and_a_damaged_one_named(tmp_path: Path):
    write_model(tmp_path / "m")
    (tmp_path / "m" / "onnx").mkdir()
    (tmp_path / "m" / "model.onnx").rename(tmp_path / "m" / "onnx" / "model.onnx")
    assert asyncio.run(OnnxEmbedder(tmp_path / "m").embed(["masons"])).shape == (1, 16)
    (tmp_path / "m" / "onnx" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="cannot be read"):
        OnnxEmbedder(tmp_path / "m")


def test_the_vector_library_and_the_model_load_in_one_process_in_either_order(tmp_path: Path):
    write_model(tmp_path / "m")
    load = [
        "from tools_server.corpora.vectors import version; version()",
        "from tools_server.corpora.onnx_embedder import OnnxEmbedder, Path; "
        f"OnnxEmbedder(Path({str(tmp_path / 'm')!r}))",
    ]
    for order in (load, load[::-1]):
        subprocess.run([sys.executable, "-c", "\n".join(order)], check=True)


def test_an_endpoints_vectors_come_in_the_order_of_the_texts_and_of_unit_length():
    found, asked = ask(["abba", "zz", "q"])
    for vector, text in zip(found, ["abba", "zz", "q"], strict=True):
        np.testing.assert_allclose(vector, unit(letters(text)), rtol=1e-5)
    assert asked[0][1] == {"model": "small", "input": ["abba", "zz", "q"], "encoding_format": "float"}


def test_failures_that_pass_are_tried_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMBED_KEY", "k3y")
    found, asked = ask(["a"], 503, 429, {"data": "odd"}, {"data": []}, key_env="EMBED_KEY")
    assert found.shape == (1, 26) and len(asked) == 5
    assert {headers["Authorization"] for headers, _ in asked} == {"Bearer k3y"}


def test_a_refused_key_is_final_and_not_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMBED_KEY", "k3y-that-nobody-may-read")
    failure, asked = ask(["a"], 401, key_env="EMBED_KEY")
    assert isinstance(failure, SearchFailure) and failure.code == "not_authorised" and len(asked) == 1
    assert "EMBED_KEY" in failure.message and "nobody" not in failure.message


def test_all_tries_share_one_deadline():
    failure, asked = ask(["a"], *[500] * 1000, deadline_s=0.5)
    assert isinstance(failure, SearchFailure) and failure.code == "upstream_timeout" and failure.passing
    assert "HTTP 500" in failure.message and 1 <= len(asked) < 100


def test_vectors_that_are_zero_are_a_failure():
    failure, _ = ask(["a"], {"data": [{"index": 0, "embedding": [0.0, 0.0]}]})
    assert isinstance(failure, SearchFailure) and "zero or not finite" in failure.message


def test_a_corpus_is_embedded_in_batches_and_searched_through_the_endpoint(tmp_path: Path):
    source = write_towns(tmp_path / "a.jsonl", 150)

    async def go() -> None:
        async with Endpoint() as endpoint:
            spec = EmbedderSpec(endpoint.url, "small", passage_prefix="passage: ")
            await asyncio.to_thread(build_index, tmp_path / "out", [source], embedder=spec, show_progress=False)
            sent = [text for _, body in endpoint.asked[1:] for text in body["input"]]
            assert len(sent) == 150 and all(text.startswith("passage: Town t") for text in sent)
            assert max(len(body["input"]) for _, body in endpoint.asked) == 64
            index = open_index(tmp_path / "out", "dense", embedder=endpoint.url)
            vector = await index.embed(sent[77])
            assert index.search("", 1, vector)[0].score == pytest.approx(1.0, abs=2e-3)
            await index.close()

    asyncio.run(go())


def test_an_endpoint_that_fails_during_a_build_says_that_it_goes_on(tmp_path: Path):
    source = write_towns(tmp_path / "a.jsonl", 10)

    async def go() -> None:
        async with Endpoint(None, 401) as endpoint:
            spec = EmbedderSpec(endpoint.url, "small")

            def build() -> int:
                return build_index(tmp_path / "out", [source], embedder=spec, show_progress=False).count

            with pytest.raises(DataError, match="run the same command again: it resumes"):
                await asyncio.to_thread(build)
            assert await asyncio.to_thread(build) == 10

    asyncio.run(go())
