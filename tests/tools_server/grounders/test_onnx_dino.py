"""Grounding DINO in ONNX Runtime, from a request to its box: a small model with a planted box in a real server."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ConfigError
from tests.tools_server.grounders.onnx_models import write_model
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import scene, write_corpus
from tools_server.assembly import assemble
from tools_server.grounders.onnx_dino import OnnxDino
from tools_server.http_app import create_app

PLANTED = (0.25, 0.5, 0.5, 0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("export") / "model", PLANTED)


def test_the_planted_box_comes_out_in_pixels(folder: Path):
    found = OnnxDino(folder, 0.25, "cpu", 1).detect(Image.new("RGB", (400, 200)), "the flag")
    assert found.boxes.tolist() == [[0, 75, 200, 125]]
    assert found.scores.tolist() == pytest.approx([0.952574], abs=1e-6)


def test_words_that_the_model_does_not_find_give_nothing(folder: Path):
    assert OnnxDino(folder, 0.25, "cpu", 1).detect(Image.new("RGB", (400, 200)), "the dog").boxes.shape == (0, 4)


def test_a_model_may_be_named_by_its_file(folder: Path):
    assert OnnxDino(folder / "onnx" / "model.onnx", 0.25, "cpu", 1).detect(Image.new("RGB", (9, 9)), "flag").scores.size


def test_a_folder_without_a_model_and_a_torn_model_are_said_so(tmp_path: Path, folder: Path):
    with pytest.raises(ConfigError, match=r"no onnx/model\.onnx in"):
        OnnxDino(tmp_path, 0.25, "cpu", 1)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"model\.onnx cannot be loaded"):
        OnnxDino(tmp_path, 0.25, "cpu", 1)


def test_a_model_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"gives classes, pred_boxes: an export of Grounding DINO takes .* and gives logits"
    ):
        OnnxDino(write_model(tmp_path / "other", PLANTED, output="classes"), 0.25, "cpu", 1)


def test_a_gpu_that_the_runtime_cannot_use_is_said_so(folder: Path):
    with pytest.raises(ConfigError, match="device is 'cuda', but this onnxruntime has no CUDAExecutionProvider"):
        OnnxDino(folder, 0.25, "cuda", 1)


def ask(folder: Path, corpus: Path, image: bytes, expression: str, route: str, **settings: object) -> dict:
    config = default_config()
    config.corpus = str(corpus)
    config.grounder.update({"kind": "onnx", "model": str(folder), **settings})
    assembly = assemble(settings_of(config))
    body = {"image_base64": base64.b64encode(image).decode(), "expression": expression}

    async def go() -> dict:
        async with TestClient(TestServer(create_app(assembly.load, assembly.limits))) as client:
            async with client.post(route, json=body) as reply:
                assert reply.status == 200, await reply.text()
                return await reply.json()

    return asyncio.run(go())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("world") / "corpus")


def encoded(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


SCENE = scene("Flag of Velmora", "Flag of New Velmora")[0]


def test_a_request_gets_the_box_with_its_padding_and_the_crops_results(folder: Path, corpus: Path):
    # 448 x 336: the planted box is 0..224 by 126..210; a quarter more on each side is 56 and 21.
    reply = ask(folder, corpus, encoded(SCENE), "the flag", search_api.ROUTE_IMAGE_SEARCH, padding=0.25)
    assert (reply["box"], reply["status"], reply["note"]) == ([0, 105, 280, 231], "ok", None)
    assert reply["results"]


def test_the_box_is_in_pixels_of_the_picture_turned_upright(folder: Path, corpus: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored as 448 x 336, shown as 336 x 448
    reply = ask(folder, corpus, encoded(SCENE, exif=exif), "flag", search_api.ROUTE_GROUND, padding=0.0)
    assert reply["box"] == [0, 168, 168, 280]


def test_without_a_detection_the_whole_image_is_searched_with_a_note(folder: Path, corpus: Path):
    reply = ask(folder, corpus, encoded(SCENE), "the dog", search_api.ROUTE_IMAGE_SEARCH)
    assert (reply["box"], reply["grounded"], reply["status"]) == (None, False, "no_detection")
    assert "whole image was used" in reply["note"]
    assert reply["results"]


def test_without_a_detection_nothing_is_searched_where_the_config_says_so(folder: Path, corpus: Path):
    reply = ask(folder, corpus, encoded(SCENE), "the dog", search_api.ROUTE_IMAGE_SEARCH, fallback="no_search")
    assert (reply["box"], reply["status"], reply["results"], reply["backend"]) == (None, "no_detection", [], "")
    assert "nothing was searched" in reply["note"]
