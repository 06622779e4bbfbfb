"""How the region that a referring expression names is found and chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmsearch_jax.core.settings import MissingFile, Section, SettingError, setting
from tools_server.settings.environment import check_packages, check_variable

_EXTRAS = {"grounding_dino": ("grounding", ("torch", "transformers")), "onnx": ("onnx", ("onnxruntime", "tokenizers"))}
_ADDRESSES = {"http": "http://gpu-machine:8765", "chat": "http://localhost:8000/v1"}


@dataclasses.dataclass(frozen=True)
class DetectionRules(Section):
    """Which detections count, and which region is made of them.

    The paper gives neither thresholds nor padding, nor what happens without a detection (arXiv 2510.12801, section on tools).
    The thresholds' defaults are those of Grounding DINO's own demonstration (arXiv 2303.05499).
    """

    box_threshold: float = setting(0.35, "score that a detection needs", at_least=0, at_most=1)
    text_threshold: float = setting(
        0.25, "score that a detection needs for one word of the expression (Grounding DINO only)", at_least=0, at_most=1
    )
    padding: float = setting(
        0.05, "what is added at each side of the box, as a share of its width or height", at_least=0, at_most=10
    )
    min_side: int = setting(8, "pixels of the image; a detection with a shorter side does not count", at_least=1)
    max_overlap: float = setting(
        0.7,
        "intersection over union; of two detections that overlap more, only the better one is kept",
        at_least=0,
        at_most=1,
    )
    max_others: int = setting(4, "further regions that the reply lists", at_least=0)
    fallback: str = setting(
        "whole_image",
        "without a detection: whole_image searches the whole image, no_search does not search; the reply says which",
        one_of=("whole_image", "no_search"),
    )


@dataclasses.dataclass(frozen=True)
class GrounderSettings(DetectionRules):
    """Who finds the region."""

    kind: str = setting(
        "embedded",
        "embedded: toy rules, no weights; grounding_dino, onnx: Grounding DINO in torch or ONNX; http: another server; chat: a "
        "vision-language model",
        one_of=("embedded", "grounding_dino", "onnx", "http", "chat"),
    )
    model: str = setting(
        "", "folder of a checkpoint (grounding_dino) or an export (onnx), or the model's name at its endpoint (chat)"
    )
    url: str = setting("", "address of another search server (http), or of a chat endpoint up to and with /v1 (chat)")
    key_env: str = setting("", "environment variable with the token or key for `url`; empty: none")
    device: str = setting("cpu", "where Grounding DINO runs", one_of=("cpu", "cuda"))
    num_threads: int = setting(0, "threads of Grounding DINO; 0: its library's default", at_least=0)
    max_waiting: int = setting(64, "expressions in progress or waiting; further ones are refused", at_least=1)
    deadline_s: float = setting(20.0, "seconds for one expression", above=0)

    def check(self) -> None:
        if self.kind in _ADDRESSES and not self.url.startswith(("http://", "https://")):
            raise SettingError(
                "url", f"is '{self.url}', but kind is '{self.kind}': give an address such as {_ADDRESSES[self.kind]}"
            )
        if self.kind == "chat" and not self.model:
            raise SettingError("model", "is empty, but kind is 'chat': name the model that the endpoint serves")

    def check_ready(self) -> None:
        if self.kind in _ADDRESSES:
            check_variable(self.key_env, "key_env")
        if self.kind in _EXTRAS:
            extra, packages = _EXTRAS[self.kind]
            check_packages(packages, extra, "kind", self.kind)
            if not self.model or not Path(self.model).exists():
                raise MissingFile(
                    "model",
                    f"is '{self.model}', must be the folder of a Grounding DINO: get one with `hf download "
                    "IDEA-Research/grounding-dino-tiny --local-dir DIR` (for onnx onnx-community/grounding-dino-tiny-ONNX)",
                    self.model,
                )

    @property
    def on_disk(self) -> bool:
        """Whether the model is a folder on this machine."""
        return self.kind in _EXTRAS

    @property
    def rules(self) -> DetectionRules:
        """The rules alone."""
        return DetectionRules(**{field.name: getattr(self, field.name) for field in dataclasses.fields(DetectionRules)})
