"""Grounding DINO by transformers and torch: the published checkpoints of Grounding DINO and MM Grounding DINO."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports] (an extra's)
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection

from mmsearch_jax.core.errors import ConfigError
from tools_server.grounders.choose import Detections
from tools_server.grounders.dino import DinoFormat, read_json

MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")


class TorchDino:
    """See `Detector`.

    Args:
      folder: a checkpoint's folder as published.
      device: "cpu" or "cuda".
      num_threads: threads of one operation on the CPU, for the whole process; 0 uses torch's default.

    Raises:
      ConfigError: no such checkpoint, a checkpoint of another model, or no such device.
    """

    def __init__(self, folder: Path, text_threshold: float, device: str, num_threads: int):
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in MODEL_TYPES:
            raise ConfigError(
                f"{folder}/config.json: model_type is {kind!r}, must be one of {', '.join(MODEL_TYPES)}: get one with "
                "`hf download IDEA-Research/grounding-dino-tiny --local-dir DIR`"
            )
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("grounder.device is 'cuda', but torch sees no GPU")
        self._format = DinoFormat(folder, text_threshold)
        if num_threads:
            torch.set_num_threads(num_threads)
        self._device = torch.device(device)
        try:
            model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"the checkpoint in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def detect(self, image: Image.Image, expression: str) -> Detections:
        """See `Detector.detect`."""
        inputs = self._format.inputs(image, expression)
        tensors = {
            field.name: torch.from_numpy(getattr(inputs, field.name)).to(self._device)
            for field in dataclasses.fields(inputs)
        }
        out = self._model(**tensors)
        logits, pred_boxes = out.logits.cpu().numpy(), out.pred_boxes.cpu().numpy()
        return self._format.detections(inputs.input_ids, logits, pred_boxes, image.size)
