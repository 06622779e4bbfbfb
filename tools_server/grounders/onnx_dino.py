"""Grounding DINO by ONNX Runtime, in the form of the published exports (onnx-community/grounding-dino-tiny-ONNX)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from mmsearch_jax.core.errors import ConfigError
from tools_server.grounders.choose import Detections
from tools_server.grounders.dino import DinoFormat, DinoInputs, folder_of

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INPUTS = frozenset(field.name for field in dataclasses.fields(DinoInputs))
_OUTPUTS = ("logits", "pred_boxes")


class OnnxDino:
    """See `Detector`.

    Args:
      model: a folder with tokenizer.json and onnx/model.onnx (or model.onnx), or such a folder's model of another name.
      device: "cpu" or "cuda".
      num_threads: threads of one operation; 0 uses the runtime's default.

    Raises:
      ConfigError: no such model, one with other inputs or outputs, or a device that the runtime was not built for.
    """

    def __init__(self, model: Path, text_threshold: float, device: str, num_threads: int):
        file = _model_file(model)
        self._format = DinoFormat(folder_of(model), text_threshold)
        self._session = _session(file, device, num_threads)
        self._names = [item.name for item in self._session.get_inputs()]
        outputs = [item.name for item in self._session.get_outputs()]
        if not _INPUTS.issuperset(self._names) or not set(_OUTPUTS).issubset(outputs):
            raise ConfigError(
                f"{file} takes {', '.join(self._names)} and gives {', '.join(outputs)}: an export of Grounding DINO takes "
                f"{', '.join(sorted(_INPUTS))} and gives {' and '.join(_OUTPUTS)}"
            )

    def detect(self, image: Image.Image, expression: str) -> Detections:
        """See `Detector.detect`."""
        inputs = self._format.inputs(image, expression)
        given = {name: getattr(inputs, name) for name in self._names}
        logits, pred_boxes = (np.asarray(value) for value in self._session.run(list(_OUTPUTS), given))
        return self._format.detections(inputs.input_ids, logits, pred_boxes, image.size)


def _model_file(model: Path) -> Path:
    if model.is_file():
        return model
    for name in ("onnx/model.onnx", "model.onnx"):
        if (model / name).is_file():
            return model / name
    raise ConfigError(f"no onnx/model.onnx in {model}: name the folder of an export, or its .onnx file")


def _session(file: Path, device: str, num_threads: int) -> onnxruntime.InferenceSession:
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(f"grounder.device is '{device}', but this onnxruntime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=[provider])
    except Exception as error:  # the library's exceptions have no common base but this
        raise ConfigError(f"{file} cannot be loaded: {str(error).splitlines()[0]}") from error
