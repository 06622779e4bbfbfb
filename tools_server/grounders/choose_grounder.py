"""The grounder that the settings describe, and what of the settings decides answers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from mmsearch_jax.core.chat_client import ChatClient
from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from tools_server.backends.upstream import Sessions
from tools_server.grounders.chat_grounder import ChatGrounder
from tools_server.grounders.dino import folder_of
from tools_server.grounders.embedded import EmbeddedGrounder
from tools_server.grounders.grounder import Grounder
from tools_server.grounders.learned import LearnedGrounder
from tools_server.grounders.remote import RemoteGrounder
from tools_server.settings.detection import GrounderSettings
from tools_server.work_pool import WorkPool


def make_grounder(settings: GrounderSettings, sessions: Sessions, pool: WorkPool) -> Grounder:
    """The grounder. Slow where weights are read.

    Args:
      settings: ready (`Section.require_ready`).
      sessions: for calls of another server.
      pool: for the embedded grounder.

    Raises:
      ConfigError: the folder holds no Grounding DINO.
    """
    if settings.kind == "embedded":
        return EmbeddedGrounder(pool, settings.fallback == "whole_image")
    if settings.kind == "http":
        return _remote(settings, sessions)
    return _chat(settings) if settings.kind == "chat" else _learned(settings)


def identity(settings: GrounderSettings) -> Any:
    """The settings that change answers: part of every key in the cache of image searches.

    A model on disk is identified by its content, not by its path. Device and time limits do not
    change answers and are left out.
    """
    if settings.kind == "embedded":
        return "embedded" if settings.fallback == "whole_image" else {"kind": "embedded", "fallback": settings.fallback}
    decides: dict[str, Any] = {"kind": settings.kind, **dataclasses.asdict(settings.rules)}
    if settings.on_disk:
        decides["model"] = _fingerprint(Path(settings.model))
    else:
        decides |= {"url": settings.url, "model": settings.model}
    return decides


def _learned(settings: GrounderSettings) -> Grounder:
    if settings.kind == "onnx":
        from tools_server.grounders.onnx_dino import OnnxDino as Dino
    else:
        from tools_server.grounders.torch_dino import TorchDino as Dino
    detector = Dino(Path(settings.model), settings.text_threshold, settings.device, settings.num_threads)
    return LearnedGrounder(settings.kind, detector, settings.rules, settings.max_waiting, settings.deadline_s)


def _remote(settings: GrounderSettings, sessions: Sessions) -> Grounder:
    key = os.environ[settings.key_env] if settings.key_env else ""
    # Thresholds and padding are applied where the detector is.
    rules = dataclasses.replace(settings.rules, box_threshold=0.0, padding=0.0, max_overlap=1.0)
    return RemoteGrounder(settings.url, key, settings.key_env, sessions, rules, settings.deadline_s)


def _chat(settings: GrounderSettings) -> Grounder:
    endpoint = ChatEndpoint(settings.url, settings.model, settings.key_env, settings.deadline_s, settings.max_waiting)
    # A model that writes boxes gives no scores.
    rules = dataclasses.replace(settings.rules, box_threshold=0.0)
    return ChatGrounder(ChatClient(endpoint, "grounding model", "boxes"), rules)


def _fingerprint(model: Path) -> str:
    """The SHA-256 of a checkpoint's files, in hexadecimal."""
    folder = folder_of(model)
    if model.is_dir():
        weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".onnx", ".onnx_data")]
        weights += (folder / "onnx").glob("model.onnx*")
    else:
        # Weights of more than 2 GB are in a file next to it, with the same name and a suffix.
        weights = list(model.parent.glob(f"{model.name}*"))
    total = hashlib.sha256()
    for path in sorted([*weights, *folder.glob("*.json")]):
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
