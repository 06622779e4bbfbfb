"""Our Qwen2.5-VL against transformers' torch model with equal random weights, in float32.

Run by `make test-parity` (it needs the `parity` extra); prints a table of configurations and their largest errors.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import Qwen2_5_VLForConditionalGeneration

from mmsearch_jax.core.trajectory import SAMPLED, Trajectory
from mmsearch_jax.data.batches import pack
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_inputs import pack_images
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.policy_update import training_sequence
from mmsearch_jax.models import hf
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.kv_cache import KVCache
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.vision import model_input
from mmsearch_jax.settings.learning import BatchShape

TOLERANCE = 1e-4
IMAGE = 5
TEXT = TextConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    mrope_section=(2, 3, 3),
    tie_word_embeddings=True,
    rope_theta=1e4,
)
VISION = VisionConfig(
    depth=3, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64, fullatt_block_indexes=(1,)
)
IDS = {"image_token_id": IMAGE, "vision_start_token_id": 3, "vision_end_token_id": 4, "video_token_id": 6}
IMAGE_CONFIG = ModelConfig(text=TEXT, vision=VISION, eos_token_id=2, **IDS)

CASES = {
    "text only, tied": (TEXT, VISION, []),
    "one image, whole windows": (TEXT, VISION, [(1, 8, 16)]),
    "ragged windows, odd grid": (TEXT, VISION, [(1, 10, 18)]),
    "several images of different sizes": (TEXT, VISION, [(1, 6, 10), (1, 10, 18), (1, 2, 4)]),
    "smaller windows": (TEXT, dataclasses.replace(VISION, window_size=56), [(1, 10, 18), (1, 6, 4)]),
    "windows that do not divide evenly": (TEXT, dataclasses.replace(VISION, window_size=100), [(1, 10, 18)]),
    "untied": (dataclasses.replace(TEXT, tie_word_embeddings=False), VISION, [(1, 6, 6)]),
    "more heads a key, deeper": (
        dataclasses.replace(
            TEXT, num_attention_heads=8, num_key_value_heads=2, num_hidden_layers=9, mrope_section=(1, 1, 2)
        ),
        dataclasses.replace(VISION, depth=9, fullatt_block_indexes=(3, 8)),
        [(1, 12, 6)],
    ),
}


def models(text: TextConfig, vision: VisionConfig, folder):
    """Our model with random weights (including biases and norms), and torch's with the same weights from a file."""
    config = ModelConfig(text=text, vision=vision, eos_token_id=2, **IDS)
    graph, state = nnx.split(Qwen2_5_VL(config, rngs=nnx.Rngs(0)))
    keys = iter(jax.random.split(jax.random.key(1), 200))
    noisy = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), state)
    ours = nnx.merge(graph, noisy)
    hf.save_pretrained(ours, folder)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(str(folder), attn_implementation="eager").eval()
    return ours, theirs, config


def conversation(grids, rng):
    """Token ids with images among them, several turns."""
    ids = [7, 8]
    for _, height, width in grids:
        ids += [3, *[IMAGE] * (height * width // 4), 4, *rng.integers(11, 300, 5)]
    return [int(i) for i in [*ids, *rng.integers(11, 300, 12)]]


def our_inputs(model, ids, images, config):
    features, index = None, np.full(len(ids), -1)
    if images:
        vision, numbers = pack_images(images, layout=config.vision.layout)
        features = model.encode_images(vision)
        index[np.array(ids) == IMAGE] = np.concatenate(numbers)
    positions, after = mrope_positions(ids, [image.grid for image in images], config)
    return features, index, positions, after


def pixel_values(images):
    """The output of transformers' image processor for these patches (tests/parity/test_image_processor.py)."""
    return torch.tensor(np.concatenate([model_input(image.patches, 2) for image in images]))


@pytest.mark.parametrize("name", CASES)
def test_logits_features_and_positions_equal(name, tmp_path):
    text, vision, grids = CASES[name]
    rng = np.random.default_rng(0)
    ours, theirs, config = models(text, vision, tmp_path)
    images = [ProcessedImage(rng.integers(0, 256, (h * w, 588), dtype=np.uint8), (t, h, w)) for t, h, w in grids]
    ids = conversation(grids, rng)
    features, index, positions, _ = our_inputs(ours, ids, images, config)
    tokens = torch.tensor([ids])
    kinds = (tokens == IMAGE).int()
    extra, feature_error = {}, 0.0
    if images:
        pixels, grid = pixel_values(images), torch.tensor(grids)
        extra = {"pixel_values": pixels, "image_grid_thw": grid}
        with torch.no_grad():
            reference = theirs.model.get_image_features(pixels, grid)
        reference = torch.cat(list(getattr(reference, "pooler_output", reference))).numpy()
        mine = np.asarray(features)[index[index >= 0]]
        feature_error = np.abs(mine - reference).max()
        assert feature_error < TOLERANCE
        rope, _ = theirs.model.get_rope_index(tokens, kinds, image_grid_thw=grid)
        np.testing.assert_array_equal(positions, rope[:, 0].numpy())
    with torch.no_grad():
        expected = theirs(input_ids=tokens, mm_token_type_ids=kinds, **extra).logits[0].numpy()
    hidden = ours(
        jnp.array([ids]),
        jnp.array(positions)[:, None],
        jnp.ones((1, len(ids)), jnp.int32),
        features,
        jnp.array(index)[None],
    )
    error = np.abs(np.asarray(ours.logits(hidden))[0] - expected).max()
    print(f"\n{name:36s} max logit error {error:.1e}, feature error {feature_error:.1e}", end="")
    assert error < TOLERANCE


@pytest.mark.parametrize("grids", [[], [(1, 6, 10), (1, 10, 18)]], ids=["text", "two images"])
def test_greedy_generation_is_equal_token_by_token(grids, tmp_path):
    rng = np.random.default_rng(3)
    ours, theirs, config = models(TEXT, VISION, tmp_path)
    images = [ProcessedImage(rng.integers(0, 256, (h * w, 588), dtype=np.uint8), (t, h, w)) for t, h, w in grids]
    ids = conversation(grids, rng)
    extra = {}
    if images:
        extra = {"pixel_values": pixel_values(images), "image_grid_thw": torch.tensor(grids)}
    tokens = torch.tensor([ids])
    expected = theirs.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        mm_token_type_ids=(tokens == IMAGE).int(),
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=None,
        pad_token_id=0,
        **extra,
    )[0, len(ids) :].tolist()
    features, index, positions, after = our_inputs(ours, ids, images, config)
    cache = KVCache.create(config, 1, len(ids) + 24, jnp.float32)
    hidden, cache = ours.extend(
        cache, jnp.array([ids]), jnp.array(positions)[:, None], jnp.array([len(ids)]), features, jnp.array(index)[None]
    )
    last, mine = hidden[0, -1], []
    for step in range(24):
        mine.append(int(jnp.argmax(ours.logits(last))))
        place = jnp.full((3, 1, 1), after + step)
        hidden, cache = ours.extend(cache, jnp.array([[mine[-1]]]), place, jnp.array([1]))
        last = hidden[0, 0]
    assert mine == expected


def test_a_conversation_fed_in_pieces_gives_the_reference_s_logits(tmp_path):
    """As in a rollout: a prompt with an image, a turn token by token, an observation with another image, a turn."""
    rng = np.random.default_rng(5)
    ours, theirs, config = models(TEXT, VISION, tmp_path)
    grids = [(1, 6, 10), (1, 10, 18)]
    images = [ProcessedImage(rng.integers(0, 256, (h * w, 588), dtype=np.uint8), (t, h, w)) for t, h, w in grids]
    first = [7, 3, *[IMAGE] * 15, 4, *rng.integers(11, 300, 6).tolist()]
    turn = rng.integers(11, 300, 4).tolist()
    second = [8, 3, *[IMAGE] * 45, 4, *rng.integers(11, 300, 3).tolist()]
    ids = [*first, *turn, *second, *turn]
    tokens = torch.tensor([ids])
    with torch.no_grad():
        expected = (
            theirs(
                input_ids=tokens,
                mm_token_type_ids=(tokens == IMAGE).int(),
                image_grid_thw=torch.tensor(grids),
                pixel_values=pixel_values(images),
            )
            .logits[0]
            .numpy()
        )
    cache, at, got = KVCache.create(config, 1, len(ids) + 5, jnp.float32), 0, []
    singles = [([token], []) for token in turn]
    for piece, shown in [(first, images[:1]), *singles, (second, images[1:]), *singles]:
        features, index, _, _ = our_inputs(ours, piece, shown, config)
        positions, at = mrope_positions(piece, [image.grid for image in shown], config, start=at)
        hidden, cache = ours.extend(
            cache,
            jnp.array([piece]),
            jnp.array(positions)[:, None],
            jnp.array([len(piece)]),
            features,
            jnp.array(index)[None],
        )
        got.append(np.asarray(ours.logits(hidden))[0])
    assert np.abs(np.concatenate(got) - expected).max() < TOLERANCE


@pytest.mark.parametrize("seed", range(12))
def test_positions_of_many_turns_and_images_equal(seed, rope_reference):
    """Random turns, each with no, one or several images, at once and turn by turn."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(int(rng.integers(2, 6))):
        ids = rng.integers(11, 300, int(rng.integers(1, 9))).tolist()
        grids = [(1, *(2 * rng.integers(1, 9, 2)).tolist()) for _ in range(int(rng.integers(0, 4)))]
        for _, height, width in grids:
            # Sometimes only the vision markup is between two images.
            ids += [3, *[IMAGE] * (height * width // 4), 4, *rng.integers(11, 300, int(rng.integers(0, 4))).tolist()]
        pieces.append((ids, grids))
    ids, grids = sum((ids for ids, _ in pieces), []), sum((grids for _, grids in pieces), [])
    tokens = torch.tensor([ids])
    expected, delta = rope_reference.model.get_rope_index(
        tokens, (tokens == IMAGE).int(), image_grid_thw=torch.tensor(grids) if grids else None
    )
    whole, after = mrope_positions(ids, grids, IMAGE_CONFIG)
    np.testing.assert_array_equal(whole, expected[:, 0].numpy())
    # The next position is the sequence's length plus the reference's delta.
    assert after == len(ids) + int(delta)
    at, parts = 0, []
    for piece, shown in pieces:
        part, at = mrope_positions(piece, shown, IMAGE_CONFIG, start=at)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert at == after


@pytest.fixture(scope="module")
def rope_reference(tmp_path_factory):
    return models(TEXT, VISION, tmp_path_factory.mktemp("rope"))[1]


@pytest.mark.parametrize("window_size", [56, 84, 112, 224])
def test_the_learner_scores_a_packed_trajectory_like_the_reference_at_every_window(window_size, tmp_path):
    rng = np.random.default_rng(7)
    ours, theirs, config = models(TEXT, dataclasses.replace(VISION, window_size=window_size), tmp_path)
    grid = (1, 18, 22)
    image = ProcessedImage(rng.integers(0, 256, (18 * 22, 588), dtype=np.uint8), grid)
    ids = conversation([grid], rng)
    count = len(ids)
    played = Trajectory("t", "t", "t", 0, 0, ids, [SAMPLED] * count, [0.0] * count, [grid])
    packed, left = pack([training_sequence(played, 1.0, image, config)], BatchShape(2, 160, 1, 18 * 22))
    assert not left
    mine = np.asarray(token_logprobs(ours, packed.batch).logprobs)[packed.places[0][1], :count]
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = theirs(
            input_ids=tokens,
            mm_token_type_ids=(tokens == IMAGE).int(),
            image_grid_thw=torch.tensor([grid]),
            pixel_values=pixel_values([image]),
        ).logits[0]
    expected = torch.log_softmax(logits, dim=-1)[torch.arange(count - 1), tokens[0, 1:]].numpy()
    error = np.abs(mine[1:] - expected).max()
    print(f"\nwindow {window_size}: max log-prob error {error:.1e}", end="")
    assert error < TOLERANCE
