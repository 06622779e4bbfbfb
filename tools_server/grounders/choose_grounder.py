"""Which grounder a config names: its settings with their defaults, the grounder itself, and what of it decides answers."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections

from mmsearch_jax.core.chat_client import ChatClient, ChatEndpoint
from mmsearch_jax.core.errors import ConfigError
from tools_server.backends.upstream import Sessions
from tools_server.grounders.base import Grounder
from tools_server.grounders.chat import ChatGrounder
from tools_server.grounders.choose import DetectionRules
from tools_server.grounders.dino import folder_of
from tools_server.grounders.embedded import EmbeddedGrounder
from tools_server.grounders.learned import LearnedGrounder
from tools_server.grounders.remote import RemoteGrounder
from tools_server.work_pool import WorkPool

KINDS = ("embedded", "grounding_dino", "onnx", "http", "chat")
DEVICES = ("cpu", "cuda")
_NEEDED = {"grounding_dino": ("grounding", ("torch", "transformers")), "onnx": ("onnx", ("onnxruntime", "tokenizers"))}


def default_settings() -> dict[str, Any]:
    """The section `grounder` of a config."""
    return {
        "kind": "embedded",
        # Folder of a checkpoint (grounding_dino), of an export (onnx), or a model's name at its endpoint (chat).
        "model": "",
        # Address of another tools server (http), or of a chat endpoint up to /v1 (chat); the variable with its token.
        "url": "",
        "key_env": "",
        "device": "cpu",
        "num_threads": 0,
        "max_waiting": 64,
        "deadline_s": 20.0,
        **dataclasses.asdict(DetectionRules()),
    }


def prepare(own: ml_collections.ConfigDict, sessions: Sessions) -> Callable[[WorkPool], Grounder]:
    """Checks the section and gives what makes its grounder; making may take long, as weights are read then.

    Raises:
      ConfigError: a value out of range, a package, a folder or an address that is missing.
    """
    rules = _rules(own)
    if own.kind not in KINDS:
        raise ConfigError(f"config.grounder.kind is '{own.kind}', must be one of {', '.join(KINDS)}")
    if own.device not in DEVICES:
        raise ConfigError(f"config.grounder.device is '{own.device}', must be one of {', '.join(DEVICES)}")
    if not own.deadline_s > 0 or own.max_waiting < 1 or own.num_threads < 0:
        raise ConfigError("config.grounder: deadline_s must be above 0, max_waiting at least 1, num_threads at least 0")
    if own.kind == "embedded":
        return lambda pool: EmbeddedGrounder(pool, rules.fallback == "whole_image")
    if own.kind == "http":
        return _remote(own, sessions, rules)
    return _chat(own, rules) if own.kind == "chat" else _learned(own, rules)


def identity(own: ml_collections.ConfigDict) -> Any:
    """What of the section decides answers: part of every key in the cache of image searches.

    A model on disk goes by its content, not by where it lies; where it runs and how long it may take decide nothing.
    """
    if own.kind == "embedded":
        return "embedded" if own.fallback == "whole_image" else {"kind": "embedded", "fallback": own.fallback}
    decides: dict[str, Any] = {"kind": own.kind, **dataclasses.asdict(_rules(own))}
    if own.kind in _NEEDED:
        decides["model"] = _fingerprint(_model(own))
    else:
        decides |= {"url": own.url, "model": own.model}
    return decides


def _rules(own: ml_collections.ConfigDict) -> DetectionRules:
    values: dict[str, Any] = {field.name: own[field.name] for field in dataclasses.fields(DetectionRules)}
    return DetectionRules(**values)


def _learned(own: ml_collections.ConfigDict, rules: DetectionRules) -> Callable[[WorkPool], Grounder]:
    extra, packages = _NEEDED[own.kind]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"config.grounder.kind is '{own.kind}', which needs {' and '.join(missing)}: pip install 'mmsearch-jax[{extra}]'"
        )
    model = _model(own)

    def make(_: WorkPool) -> Grounder:
        if own.kind == "onnx":
            from tools_server.grounders.onnx_dino import OnnxDino as Dino
        else:
            from tools_server.grounders.torch_dino import TorchDino as Dino
        detector = Dino(model, rules.text_threshold, own.device, own.num_threads)
        return LearnedGrounder(own.kind, detector, rules, own.max_waiting, own.deadline_s)

    return make


def _model(own: ml_collections.ConfigDict) -> Path:
    model = Path(own.model)
    if own.model and model.exists():
        return model
    raise ConfigError(
        f"config.grounder.model is '{own.model}', must be the folder of a Grounding DINO: get one with "
        "`hf download IDEA-Research/grounding-dino-tiny --local-dir DIR` (for onnx onnx-community/grounding-dino-tiny-ONNX)"
    )


def _remote(
    own: ml_collections.ConfigDict, sessions: Sessions, rules: DetectionRules
) -> Callable[[WorkPool], Grounder]:
    _check_url(own.url, "http://gpu-machine:8765")
    key = os.environ.get(own.key_env, "") if own.key_env else ""
    if own.key_env and not key:
        raise ConfigError(f"config.grounder.key_env names the environment variable {own.key_env}, which is not set")
    # Thresholds and padding are applied where the detector is.
    rules = dataclasses.replace(rules, box_threshold=0.0, padding=0.0, max_overlap=1.0)
    return lambda _: RemoteGrounder(own.url, key, own.key_env, sessions, rules, own.deadline_s)


def _chat(own: ml_collections.ConfigDict, rules: DetectionRules) -> Callable[[WorkPool], Grounder]:
    _check_url(own.url, "http://localhost:8000/v1")
    if not own.model:
        raise ConfigError("config.grounder.model is empty: name the model that the endpoint serves")
    endpoint = ChatEndpoint(own.url, own.model, own.key_env, own.deadline_s, own.max_waiting)
    # A model that writes boxes gives no scores.
    rules = dataclasses.replace(rules, box_threshold=0.0)
    return lambda _: ChatGrounder(ChatClient(endpoint, "grounding model", "boxes"), rules)


def _check_url(url: str, example: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"config.grounder.url is '{url}': give an address such as {example}")


def _fingerprint(model: Path) -> str:
    """The SHA-256 of a checkpoint's files, in hexadecimal."""
    folder = folder_of(model)
    if model.is_dir():
        weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".onnx", ".onnx_data")]
        weights += (folder / "onnx").glob("model.onnx*")
    else:
        # Weights of more than 2 GB lie beside the file, under its name with an ending.
        weights = list(model.parent.glob(f"{model.name}*"))
    total = hashlib.sha256()
    for path in sorted([*weights, *folder.glob("*.json")]):
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
