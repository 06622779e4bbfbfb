"""Training sequences as bytes, for the exchange between the processes of a run.

NumPy's own format without pickled objects. An image that several sequences share is written once and is one object again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from mmsearch_jax.data.batches import TrainingSequence
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_layout import VisionLayout

_EXTRA, _IMAGE = "extra:", "image:"


def to_bytes(sequences: Sequence[TrainingSequence]) -> bytes:
    """The sequences, which must have the same extras, image token and layout; b"" for none."""
    if not sequences:
        return b""
    first = sequences[0]
    images = {id(image): image for sequence in sequences for image in sequence.images}
    numbers = {key: number for number, key in enumerate(images)}
    arrays = {
        "lengths": np.array([len(sequence) for sequence in sequences], np.int32),
        "token_ids": np.concatenate([sequence.token_ids for sequence in sequences]),
        "positions": np.concatenate([sequence.positions for sequence in sequences], axis=1),
        "loss_weights": np.concatenate([sequence.loss_weights for sequence in sequences]),
        "image_counts": np.array([len(sequence.images) for sequence in sequences], np.int32),
        "image_numbers": np.array([numbers[id(i)] for sequence in sequences for i in sequence.images], np.int32),
        "image_grids": np.array([image.grid for image in images.values()], np.int32).reshape(-1, 3),
        "common": np.array([first.image_token_id, *first.layout], np.int32),
    }
    for name in first.extras:
        arrays[_EXTRA + name] = np.concatenate([sequence.extras[name] for sequence in sequences])
    for number, image in enumerate(images.values()):
        arrays[f"{_IMAGE}{number}"] = image.patches
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def from_bytes(encoded: bytes) -> list[TrainingSequence]:
    """The sequences that `to_bytes` wrote, with equal arrays."""
    if not encoded:
        return []
    with np.load(io.BytesIO(encoded), allow_pickle=False) as arrays:
        grids = [(int(t), int(h), int(w)) for t, h, w in arrays["image_grids"]]
        images = [ProcessedImage(arrays[f"{_IMAGE}{number}"], grid) for number, grid in enumerate(grids)]
        extras = {name.removeprefix(_EXTRA): arrays[name] for name in arrays.files if name.startswith(_EXTRA)}
        ends = np.cumsum(arrays["lengths"])[:-1]
        per_sequence = {name: np.split(values, ends) for name, values in extras.items()}
        shown = np.split(arrays["image_numbers"], np.cumsum(arrays["image_counts"])[:-1])
        image_token_id, *layout = map(int, arrays["common"])
        parts = zip(
            np.split(arrays["token_ids"], ends),
            np.split(arrays["positions"], ends, axis=1),
            np.split(arrays["loss_weights"], ends),
            shown,
            strict=True,
        )
        return [
            TrainingSequence(
                token_ids,
                positions,
                loss_weights,
                [images[number] for number in numbers],
                image_token_id,
                {name: values[i] for name, values in per_sequence.items()},
                VisionLayout(*layout),
            )
            for i, (token_ids, positions, loss_weights, numbers) in enumerate(parts)
        ]
