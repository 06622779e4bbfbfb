"""Which grounder a config names, what it refuses, and what of it is part of the cache's keys."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmsearch_jax.core.errors import ConfigError
from tests.tools_server.grounders.onnx_models import write_model
from tools_server.assembly import default_config
from tools_server.backends.upstream import Sessions
from tools_server.grounders import choose_grounder as settings


def section(**own: Any) -> Any:
    config = default_config().grounder
    config.update(own)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("export") / "model", (0.5, 0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"kind": "magic"}, "kind is 'magic', must be one of embedded, grounding_dino, onnx, http, chat"),
        ({"device": "tpu"}, "device is 'tpu', must be one of cpu, cuda"),
        ({"deadline_s": 0.0}, "deadline_s must be above 0"),
        ({"fallback": "hope"}, "fallback is 'hope'"),
        ({"kind": "onnx"}, "model is '', must be the folder of a Grounding DINO"),
        ({"kind": "onnx", "model": "nowhere"}, "hf download"),
        ({"kind": "http", "url": "gpu-machine"}, "url is 'gpu-machine': give an address such as http://"),
        ({"kind": "http", "url": "http://x", "key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE, which is not set"),
        ({"kind": "chat", "url": "http://x/v1"}, "model is empty"),
    ],
)
def test_a_section_that_cannot_work_is_said_so_at_once(own: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        settings.prepare(section(**own), Sessions())


@pytest.mark.parametrize(
    ("kind", "missing", "extra"), [("grounding_dino", "torch", "grounding"), ("onnx", "onnxruntime", "onnx")]
)
def test_a_missing_package_is_named_with_its_extra(
    kind: str, missing: str, extra: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(ConfigError, match=rf"needs {missing}: pip install 'mmsearch-jax\[{extra}\]'"):
        settings.prepare(section(kind=kind, model=str(folder)), Sessions())


def test_the_embedded_grounder_keeps_its_key():
    assert settings.identity(section()) == "embedded"
    assert settings.identity(section(padding=0.3, device="cuda")) == "embedded"
    assert settings.identity(section(fallback="no_search")) != "embedded"


@pytest.mark.parametrize(
    "changed",
    [
        {"box_threshold": 0.5},
        {"text_threshold": 0.5},
        {"padding": 0.5},
        {"min_side": 3},
        {"max_overlap": 0.1},
        {"max_others": 1},
        {"fallback": "no_search"},
        {"kind": "chat"},
        {"url": "http://y"},
        {"model": "other"},
    ],
)
def test_what_decides_an_answer_is_in_the_key(changed: dict[str, Any]):
    own = {"kind": "http", "url": "http://x"}
    assert settings.identity(section(**own)) != settings.identity(section(**{**own, **changed}))


@pytest.mark.parametrize("changed", [{"deadline_s": 3.0}, {"device": "cuda"}, {"num_threads": 2}, {"max_waiting": 5}])
def test_what_decides_none_is_not(changed: dict[str, Any], folder: Path):
    own = {"kind": "onnx", "model": str(folder)}
    assert settings.identity(section(**own)) == settings.identity(section(**own, **changed))


def test_a_model_goes_by_its_content_not_by_its_place(folder: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    before = settings.identity(section(kind="onnx", model=str(folder)))
    assert settings.identity(section(kind="onnx", model=str(moved))) == before
    write_model(tmp_path / "retrained", (0.5, 0.5, 0.25, 0.5))
    shutil.copy(tmp_path / "retrained" / "onnx" / "model.onnx", moved / "onnx" / "model.onnx")
    assert settings.identity(section(kind="onnx", model=str(moved))) != before


def test_a_model_named_by_its_file_goes_by_its_content_too(folder: Path, tmp_path: Path):
    write_model(tmp_path / "other", (0.5, 0.5, 0.25, 0.5))
    one, other = (
        settings.identity(section(kind="onnx", model=str(at / "onnx" / "model.onnx")))
        for at in (folder, tmp_path / "other")
    )
    assert one != other
