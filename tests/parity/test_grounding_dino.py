"""Our pre- and post-processing of Grounding DINO against transformers'; the real architecture with random weights."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from transformers import GroundingDinoForObjectDetection, PreTrainedTokenizerFast  # noqa: E402
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil  # noqa: E402
from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor  # noqa: E402

from mmsearch_jax.core.errors import ConfigError  # noqa: E402
from tests.parity.grounding_dino_checkpoint import QUERIES, write_checkpoint  # noqa: E402
from tests.tiny_grounding_dino import tokenizer  # noqa: E402
from tools_server.backends.upstream import Sessions  # noqa: E402
from tools_server.grounders.choose import choose  # noqa: E402
from tools_server.grounders.choose_grounder import identity, make_grounder  # noqa: E402
from tools_server.grounders.dino import DinoFormat, ImageScaling, pixel_values, scaled_size  # noqa: E402
from tools_server.grounders.grounder import Grounding  # noqa: E402
from tools_server.grounders.torch_dino import TorchDino  # noqa: E402
from tools_server.request_images import decode_image  # noqa: E402
from tools_server.settings.detection import DetectionRules, GrounderSettings  # noqa: E402
from tools_server.work_pool import WorkPool  # noqa: E402

TOKENS = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("grounding-dino"))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (800, 800), (31, 200), (1600, 8), (1067, 800), (801, 799)])
def test_pictures_are_made_ready_as_by_the_processor(size: tuple[int, int]):
    image = picture(*size)
    theirs = GroundingDinoImageProcessorPil()(images=image, return_tensors="np")["pixel_values"][0]
    ours = pixel_values(image, ImageScaling())
    assert ours.shape == theirs.shape == (3, *scaled_size(size, ImageScaling())[::-1])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("size", "expression"), [((300, 200), "the flag on the left"), ((90, 160), "A red dog?")])
def test_scores_and_boxes_are_those_of_transformers_post_processing(
    folder: Path, size: tuple[int, int], expression: str
):
    form = DinoFormat(folder, text_threshold=0.3)
    ids = form.inputs(picture(*size), expression).input_ids
    rng = np.random.default_rng(1)
    logits = np.full((1, 60, TOKENS), -np.inf, np.float32)
    logits[:, :, : ids.shape[1]] = rng.normal(-1.5, 1, (1, 60, ids.shape[1]))
    boxes = rng.uniform(0.05, 0.95, (1, 60, 4)).astype(np.float32)
    out = SimpleNamespace(logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes))
    decoder = SimpleNamespace(batch_decode=lambda rows: [tokenizer().decode([int(i) for i in row]) for row in rows])
    [theirs] = GroundingDinoProcessor.post_process_grounded_object_detection(
        decoder, out, torch.from_numpy(ids), threshold=0.4, text_threshold=0.3, target_sizes=[size[::-1]]
    )
    ours = form.detections(ids, logits, boxes, size)
    kept = ours.scores > 0.4
    # A box that fits only the closing dot or the end token has no word in its label; our code drops it.
    labels = [text.replace("[SEP]", "") for text in theirs["text_labels"]]
    labelled = [any(letter.isalnum() for letter in text) for text in labels]
    assert {True, False} == set(labelled)
    np.testing.assert_allclose(ours.scores[kept], theirs["scores"].numpy()[labelled], rtol=1e-6)
    np.testing.assert_allclose(ours.boxes[kept], theirs["boxes"].numpy()[labelled], rtol=1e-4, atol=1e-3)


def test_the_real_architecture_loads_and_answers_with_every_query(folder: Path):
    detector = TorchDino(folder, text_threshold=0.0, device="cpu", num_threads=0)
    found = detector.detect(picture(120, 80), "a red dog with a tower")
    assert (found.boxes.shape, found.scores.shape) == ((QUERIES, 4), (QUERIES,))
    assert np.isfinite(found.scores).all()
    assert np.ptp(found.boxes) > 0


def test_an_answer_is_that_of_transformers_from_picture_to_box(folder: Path):
    """transformers' processor and model, and our code with the same weights."""
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(folder),
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]"),
    )
    image = picture(300, 200)
    given = processor(images=image, text="the red flag with a tower.", return_tensors="pt")
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    with torch.inference_mode():
        out = model(**given)
    [theirs] = processor.post_process_grounded_object_detection(
        out, given["input_ids"], threshold=0.0, text_threshold=0.0, target_sizes=[(200, 300)]
    )
    ours = TorchDino(folder, text_threshold=0.0, device="cpu", num_threads=0).detect(image, "The red flag with a tower")
    assert len(ours.scores) == QUERIES
    np.testing.assert_allclose(ours.scores, theirs["scores"].numpy(), rtol=1e-4)
    np.testing.assert_allclose(ours.boxes, theirs["boxes"].numpy(), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", [(1600, 8), (8, 1600), (8, 8)])
def test_pictures_of_extreme_shape_are_answered(folder: Path, size: tuple[int, int]):
    detector = TorchDino(folder, text_threshold=0.0, device="cpu", num_threads=0)
    assert len(detector.detect(picture(*size), "the flag").scores) == QUERIES


def test_an_expression_longer_than_the_model_takes_is_cut(folder: Path):
    detector = TorchDino(folder, text_threshold=0.0, device="cpu", num_threads=0)
    assert len(detector.detect(picture(64, 64), "the red flag " * 300).scores) == QUERIES


def test_a_config_that_names_it_gets_it(folder: Path):
    settings = GrounderSettings(kind="grounding_dino", model=str(folder), box_threshold=0.0, text_threshold=0.0)

    async def go() -> Grounding:
        grounder = make_grounder(settings, Sessions(), WorkPool(1, 1))
        try:
            return await grounder.ground(picture(300, 200), "the flag")
        finally:
            await grounder.close()

    found = asyncio.run(go())
    x0, y0, x1, y1 = found.box or (0, 0, 0, 0)
    assert 0 <= x0 < x1 <= 300 and 0 <= y0 < y1 <= 200
    assert identity(settings)["kind"] == "grounding_dino"


def test_a_planted_box_comes_out_in_pixels_of_the_turned_picture(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The stored image is 200 x 100; EXIF says that it is turned by 90 degrees, so upright it is 100 x 200."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = io.BytesIO()
    picture(200, 100).save(stored, "JPEG", exif=exif)
    upright = decode_image(stored.getvalue(), max_pixels=10**6)
    assert upright.size == (100, 200)

    detector = TorchDino(folder, text_threshold=0.25, device="cpu", num_threads=0)
    asked = {}

    def planted(**inputs: torch.Tensor) -> SimpleNamespace:
        asked.update(inputs)
        logits = torch.full((1, QUERIES, TOKENS), -20.0)
        logits[0, 7, 2] = 2.0  # the word "flag", after [CLS] and "the"
        boxes = torch.full((1, QUERIES, 4), 0.5)
        boxes[0, 7] = torch.tensor([0.5, 0.25, 0.2, 0.1])
        return SimpleNamespace(logits=logits, pred_boxes=boxes)

    monkeypatch.setattr(detector, "_model", planted)
    found = detector.detect(upright, "The FLAG")
    # The upright size of 100 x 200 is scaled to 64 x 128.
    assert asked["pixel_values"].shape == (1, 3, 128, 64)
    # Centre (50, 50), 20 wide, 20 high.
    assert choose(found, upright.size, DetectionRules(padding=0.0)).box == (40, 40, 60, 60)
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2.0))])


def test_the_heads_own_bias_moves_every_box_where_it_says(folder: Path):
    """Through the whole network: a head with a large bias for one side puts every box there."""
    detector = TorchDino(folder, text_threshold=0.0, device="cpu", num_threads=0)
    with torch.no_grad():
        for head in {
            id(h): h for h in [*detector._model.bbox_embed, *detector._model.model.decoder.bbox_embed]
        }.values():
            head.layers[-1].weight.zero_()
            head.layers[-1].bias.copy_(torch.tensor([12.0, -12.0, -2.0, -2.0]))
    found = detector.detect(picture(400, 200), "the flag")
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    np.testing.assert_allclose(centres, [[400, 0]] * QUERIES, atol=2)


def test_another_kind_of_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "owlvit"}')
    with pytest.raises(ConfigError, match="model_type is 'owlvit', must be one of grounding-dino"):
        TorchDino(tmp_path, 0.25, "cpu", 0)


def test_a_torn_checkpoint_is_said_so(folder: Path, tmp_path: Path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ConfigError, match="cannot be loaded"):
        TorchDino(tmp_path, 0.25, "cpu", 0)


def test_a_gpu_that_is_not_there_is_said_so(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        TorchDino(folder, 0.25, "cuda", 0)
