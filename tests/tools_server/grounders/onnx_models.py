"""A model in the format of Grounding DINO's exports that finds a planted box for the word "flag"."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.tiny_grounding_dino import save_tokenizer

FLAG = 202
"""The id of the word "flag" in the tiny tokenizer."""


def write_model(folder: Path, box: tuple[float, float, float, float], output: str = "logits") -> Path:
    """Writes an export with two queries: one with a planted box (centre and sides as shares), one that matches nothing.

    Args:
      output: name of the scores; "logits" in a valid export.
    """
    save_tokenizer(folder)
    (folder / "onnx").mkdir()
    constants = {
        "flag": np.array(FLAG, np.int64),
        "fits": np.array(3.0, np.float32),
        "fits_not": np.array(-9.0, np.float32),
        "boxes": np.array([[box, (0.5, 0.5, 1.0, 1.0)]], np.float32),
        "one": np.array([1], np.int64),
        "width": np.array([256], np.int64),
        "zero": np.array([0], np.int64),
        "two": np.array([2], np.int64),
        "nothing": np.array(-np.inf, np.float32),
        "low": np.full((1, 1, 256), -9.0, np.float32),
        "axes": np.array([1, 2, 3], np.int64),
        "no_share": np.array(0.0, np.float32),
    }
    nodes = [
        # [1, L]: 3 where the word is "flag", -9 elsewhere; then out to 256 tokens, as in the exports.
        helper.make_node("Equal", ["input_ids", "flag"], ["is_flag"]),
        helper.make_node("Where", ["is_flag", "fits", "fits_not"], ["fit"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two"], ["length"]),
        helper.make_node("Sub", ["width", "length"], ["missing"]),
        helper.make_node("Concat", ["zero", "zero", "zero", "missing"], ["pads"], axis=0),
        helper.make_node("Pad", ["fit", "pads", "nothing"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "one"], ["first"]),
        helper.make_node("Concat", ["first", "low"], [output], axis=1),
        # Uses the pixels, because the runtime refuses inputs that the model does not use.
        helper.make_node("ReduceMean", ["pixel_values"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "no_share"], ["none"]),
        helper.make_node("Add", ["boxes", "none"], ["pred_boxes"]),
    ]
    ids = [(name, TensorProto.INT64, ["batch", "length"]) for name in ("input_ids", "token_type_ids", "attention_mask")]
    inputs = [
        ("pixel_values", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
        ("pixel_mask", TensorProto.INT64, ["batch", "height", "width"]),
        *ids,
    ]
    outputs = [(output, TensorProto.FLOAT, ["batch", 2, 256]), ("pred_boxes", TensorProto.FLOAT, ["batch", 2, 4])]
    graph = helper.make_graph(
        nodes,
        "grounding",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "onnx" / "model.onnx"))
    return folder
