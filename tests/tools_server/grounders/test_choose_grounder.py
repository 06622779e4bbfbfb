"""A grounder's settings: those that are refused, and those that are part of the cache's keys."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmsearch_jax.core.settings import SettingError
from tests.tools_server.grounders.onnx_models import write_model
from tools_server.grounders.choose_grounder import identity
from tools_server.settings.detection import GrounderSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("export") / "model", (0.5, 0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"kind": "magic"}, "kind is 'magic': .*use embedded, grounding_dino, onnx, http or chat"),
        ({"device": "tpu"}, "device is 'tpu': .*cpu or cuda"),
        ({"deadline_s": 0.0}, "deadline_s is 0.0: must be above 0"),
        ({"fallback": "hope"}, "fallback is 'hope'"),
        ({"kind": "onnx"}, "model is '', must be the folder of a Grounding DINO"),
        ({"kind": "onnx", "model": "nowhere"}, "hf download"),
        (
            {"kind": "http", "url": "gpu-machine"},
            "url is 'gpu-machine', but kind is 'http': give an address such as http://",
        ),
        ({"kind": "http", "url": "http://x", "key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE, which is not set"),
        ({"kind": "chat", "url": "http://x/v1"}, "model is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(own: dict[str, Any], words: str):
    with pytest.raises(SettingError, match=words):
        GrounderSettings(**own).require_ready()


@pytest.mark.parametrize(
    ("kind", "missing", "extra"), [("grounding_dino", "torch", "grounding"), ("onnx", "onnxruntime", "onnx")]
)
def test_a_missing_package_is_named_with_its_extra(
    kind: str, missing: str, extra: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(SettingError, match=rf"needs {missing}.*: pip install 'mmsearch-jax\[{extra}\]'"):
        GrounderSettings(kind=kind, model=str(folder)).require_ready()


def test_the_embedded_grounder_keeps_its_key():
    assert identity(GrounderSettings()) == "embedded"
    assert identity(GrounderSettings(padding=0.3, device="cuda")) == "embedded"
    assert identity(GrounderSettings(fallback="no_search")) != "embedded"


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
        {"kind": "chat", "model": "m"},
        {"url": "http://y"},
        {"model": "other"},
    ],
)
def test_what_decides_an_answer_is_in_the_key(changed: dict[str, Any]):
    own = {"kind": "http", "url": "http://x"}
    assert identity(GrounderSettings(**own)) != identity(GrounderSettings(**{**own, **changed}))


@pytest.mark.parametrize("changed", [{"deadline_s": 3.0}, {"device": "cuda"}, {"num_threads": 2}, {"max_waiting": 5}])
def test_what_decides_none_is_not(changed: dict[str, Any], folder: Path):
    own = {"kind": "onnx", "model": str(folder)}
    assert identity(GrounderSettings(**own)) == identity(GrounderSettings(**own, **changed))


def test_a_model_goes_by_its_content_not_by_its_place(folder: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    before = identity(GrounderSettings(kind="onnx", model=str(folder)))
    assert identity(GrounderSettings(kind="onnx", model=str(moved))) == before
    write_model(tmp_path / "retrained", (0.5, 0.5, 0.25, 0.5))
    shutil.copy(tmp_path / "retrained" / "onnx" / "model.onnx", moved / "onnx" / "model.onnx")
    assert identity(GrounderSettings(kind="onnx", model=str(moved))) != before


def test_a_model_named_by_its_file_goes_by_its_content_too(folder: Path, tmp_path: Path):
    write_model(tmp_path / "other", (0.5, 0.5, 0.25, 0.5))
    one, other = (
        identity(GrounderSettings(kind="onnx", model=str(at / "onnx" / "model.onnx")))
        for at in (folder, tmp_path / "other")
    )
    assert one != other
