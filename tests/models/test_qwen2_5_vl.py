"""The policy's own invariants (the comparison with torch is in tests/parity)."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError, DataError
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_inputs import pack_images
from mmsearch_jax.models import hf
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.kv_cache import KVCache
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.models.policies import export_hf, import_hf
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        mrope_section=(2, 1, 1),
        tie_word_embeddings=True,
        rope_theta=1e4,
    ),
    vision=VisionConfig(
        depth=2, hidden_size=16, intermediate_size=32, num_heads=2, out_hidden_size=32, fullatt_block_indexes=(1,)
    ),
    image_token_id=5,
    vision_start_token_id=3,
    vision_end_token_id=4,
    video_token_id=6,
    eos_token_id=2,
)


@pytest.fixture(scope="module")
def model():
    return Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))


# One program each, instead of one an operation.
forward = nnx.jit(lambda model, *arguments: model(*arguments))
encode_images = nnx.jit(lambda model, vision: model.encode_images(vision))
extend = nnx.jit(lambda model, *arguments: model.extend(*arguments))


def image(seed, height, width):
    rng = np.random.default_rng(seed)
    return ProcessedImage(rng.integers(0, 256, (height * width, 588), dtype=np.uint8), (1, height, width))


def test_step_by_step_equals_the_full_forward(model):
    ids = np.random.default_rng(0).integers(7, 64, (2, 12))
    positions = np.broadcast_to(np.arange(12), (3, 2, 12))
    full = forward(model, jnp.array(ids), jnp.array(positions), jnp.ones((2, 12), jnp.int32))
    cache = KVCache.create(CONFIG, 2, 16, jnp.float32)
    # Row 0 gets 5 tokens at once and row 1 gets 3; then both continue token by token, each at its own position.
    first, cache = extend(model, cache, jnp.array(ids[:, :5]), jnp.array(positions[:, :, :5]), jnp.array([5, 3]))
    np.testing.assert_allclose(first[0], full[0, :5], atol=2e-5)
    np.testing.assert_allclose(first[1, :3], full[1, :3], atol=2e-5)
    place = np.array([5, 3])
    for _ in range(7):
        tokens = jnp.array(ids[[0, 1], place][:, None])
        hidden, cache = extend(
            model, cache, tokens, jnp.array(np.broadcast_to(place[None, :, None], (3, 2, 1))), jnp.array([1, 1])
        )
        np.testing.assert_allclose(hidden[:, 0], full[[0, 1], place], atol=2e-5)
        place += 1
    assert cache.lengths.tolist() == place.tolist()


def test_neighbours_in_a_packed_row_do_not_see_each_other(model):
    rng = np.random.default_rng(1)
    first, second = rng.integers(7, 64, 5), rng.integers(7, 64, 6)
    row = np.concatenate([first, second, [0]])[None]
    positions = np.concatenate([np.arange(5), np.arange(6), [0]])
    segments = np.array([[1] * 5 + [2] * 6 + [0]])
    packed = forward(model, jnp.array(row), jnp.array(np.broadcast_to(positions, (3, 1, 12))), jnp.array(segments))
    alone = forward(
        model, jnp.array(second[None]), jnp.array(np.broadcast_to(np.arange(6), (3, 1, 6))), jnp.ones((1, 6), jnp.int32)
    )
    np.testing.assert_allclose(packed[0, 5:11], alone[0], atol=2e-5)
    changed = row.copy()
    changed[0, 2] = 60
    again = forward(model, jnp.array(changed), jnp.array(np.broadcast_to(positions, (3, 1, 12))), jnp.array(segments))
    np.testing.assert_array_equal(again[0, 5:11], packed[0, 5:11])


def test_image_padding_changes_nothing(model):
    images = [image(0, 4, 6), image(1, 10, 12)]
    tight, numbers = pack_images(images[:1])
    wide, wide_numbers = pack_images(images, row_patches=160, num_rows=3)
    alone, padded = encode_images(model, tight)[numbers[0]], encode_images(model, wide)[wide_numbers[0]]
    np.testing.assert_allclose(alone, padded, atol=1e-5)


def test_images_that_share_a_row_do_not_see_each_other(model):
    # Ragged windows, and one image of several windows between two others.
    images = [image(2, 4, 6), image(3, 10, 12), image(4, 2, 10)]
    shared, numbers = pack_images(images, row_patches=176)
    assert len(shared.patches) == 1 and [min(own) for own in numbers] == [0, 6, 36]
    together = encode_images(model, shared)
    for each, own in zip(images, numbers, strict=True):
        vision, (of_alone,) = pack_images([each])
        np.testing.assert_allclose(together[own], encode_images(model, vision)[of_alone], atol=1e-5)
    changed = shared._replace(patches=shared.patches.copy())
    changed.patches[0, 24:144] = 255 - changed.patches[0, 24:144]
    again = encode_images(model, changed)
    np.testing.assert_array_equal(again[:6], together[:6])
    np.testing.assert_array_equal(again[36:41], together[36:41])
    assert not np.allclose(again[6:36], together[6:36], atol=1e-3)


@pytest.mark.parametrize(
    ("ids", "grids", "message"),
    [
        ([7, 5, 5, 8], [(1, 4, 6)], "image 0 has 6 tokens, but the run of image placeholders at token 1 has 2"),
        ([7, 5, 8], [], "placeholders at token 1 have no image: 1 runs of placeholders, 0 images"),
        ([7, 5, 5, 8, 5], [(1, 2, 4)], "placeholders at token 4 have no image: 2 runs of placeholders, 1 images"),
        ([7, 5, 5, 8], [(1, 2, 4), (1, 4, 4)], "image 1 has no placeholders among the 4 tokens"),
        ([7, 8], [(1, 2, 4)], "image 0 has no placeholders among the 2 tokens"),
        # The number of placeholders is right, but they do not show where an image ends.
        ([7, 5, 5, 5, 5], [(1, 2, 4), (1, 2, 4)], "image 0 has 2 tokens, but the run .* at token 1 has 4"),
        # The total number is right, but the images are in the wrong order.
        ([5, 5, 7, 5], [(1, 2, 2), (1, 2, 4)], "image 0 has 1 tokens, but the run .* at token 0 has 2"),
    ],
)
def test_placeholders_and_images_must_match(ids, grids, message):
    with pytest.raises(DataError, match=message):
        mrope_positions(ids, grids, CONFIG)


@pytest.mark.parametrize(("patches", "grid"), [(24, (1, 4, 4)), (12, (1, 3, 4))])
def test_an_image_has_the_patches_of_its_grid(patches, grid):
    with pytest.raises(DataError, match=f"image 1 has {patches} patches and the grid"):
        pack_images([image(0, 4, 6), ProcessedImage(np.zeros((patches, 588), np.uint8), grid)])


def test_positions_go_on_from_where_a_turn_ended():
    whole, after = mrope_positions([7, 8, *[5] * 6, 9, 10, *[5] * 2, 11], [(1, 4, 6), (1, 2, 4)], CONFIG)
    head, middle = mrope_positions([7, 8, *[5] * 6, 9], [(1, 4, 6)], CONFIG)
    tail, end = mrope_positions([10, *[5] * 2, 11], [(1, 2, 4)], CONFIG, start=middle)
    np.testing.assert_array_equal(np.concatenate([head, tail], axis=1), whole)
    assert end == after


def test_config_survives_the_round_trip():
    assert ModelConfig.from_hf(json.loads(json.dumps(CONFIG.to_hf()))) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llava"}, "describes a 'llava' model, expected 'qwen2_5_vl'"),
        (
            {"text_config": {**CONFIG.to_hf()["text_config"], "rope_parameters": {"rope_type": "yarn"}}},
            "RoPE of type 'yarn'",
        ),
        ({"text_config": {**CONFIG.to_hf()["text_config"], "use_sliding_window": True}}, "sliding-window attention"),
        ({"text_config": {**CONFIG.to_hf()["text_config"], "hidden_act": "gelu"}}, "activation 'gelu'"),
        ({"vision_config": {**CONFIG.to_hf()["vision_config"], "hidden_act": "gelu"}}, "activation 'gelu'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"text_config": [1]}, "text_config is not an object"),
        ({"text_config": {**CONFIG.to_hf()["text_config"], "layer_types": ["sliding_attention"]}}, "sliding-window"),
        (
            {"text_config": {**CONFIG.to_hf()["text_config"], "rope_scaling": {"type": "linear"}}},
            "RoPE of type 'linear'",
        ),
        ({"text_config": {**CONFIG.to_hf()["text_config"], "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"text_config": {**CONFIG.to_hf()["text_config"], "hidden_size": "192"}}, "text_config.hidden_size is '192'"),
        ({"text_config": {**CONFIG.to_hf()["text_config"], "num_hidden_layers": None}}, "num_hidden_layers is None"),
        ({"vision_config": {**CONFIG.to_hf()["vision_config"], "num_heads": 0}}, "vision_config.num_heads is 0"),
        ({"vision_config": {**CONFIG.to_hf()["vision_config"], "num_heads": 7}}, "no multiple of num_heads 7"),
    ],
)
def test_another_architecture_is_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        ModelConfig.from_hf({**CONFIG.to_hf(), **change})


def test_the_older_config_layout_is_read():
    nested = CONFIG.to_hf()
    text = nested.pop("text_config")
    rope = text.pop("rope_parameters")
    old = {
        **text,
        **nested,
        "model_type": "qwen2_5_vl",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    assert ModelConfig.from_hf(old) == CONFIG


def test_a_window_holds_whole_merged_tokens():
    assert [VisionConfig(window_size=size).window_patches for size in (112, 100, 56)] == [8, 6, 4]


def leaves(model):
    return jax.tree.leaves(nnx.split(model)[1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_import_and_export_give_back_every_tensor(model, dtype, tmp_path):
    graph, state = nnx.split(model)
    model = nnx.merge(graph, jax.tree.map(lambda leaf: leaf.astype(dtype), state))
    hf.save_pretrained(model, tmp_path / "hf")
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copyfile(f"assets/tiny-base/{name}", tmp_path / "hf" / name)
    import_hf(tmp_path / "hf", tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "back")
    back, config = hf.load_pretrained(tmp_path / "back")
    assert config == CONFIG
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == (
        tmp_path / "back" / "model.safetensors"
    ).read_bytes()
    assert all(bool((a == b).all()) and a.dtype == b.dtype for a, b in zip(leaves(model), leaves(back), strict=True))
    with pytest.raises(CheckpointError, match="already holds a policy"):
        import_hf(tmp_path / "hf", tmp_path / "ours")


def test_missing_unexpected_and_misshapen_tensors_are_listed(model, tmp_path):
    from safetensors.numpy import load_file, save_file

    hf.save_pretrained(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.language_model.norm.weight"]
    tensors["surprise"] = np.zeros(3, np.float32)
    tensors["model.visual.merger.ln_q.weight"] = np.zeros(7, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        hf.load_pretrained(tmp_path)
    for part in (
        "missing model.language_model.norm.weight",
        "unexpected surprise",
        "ln_q.weight is (7,), expected (16,)",
    ):
        assert part in str(caught.value)


def test_the_older_weight_names_and_a_sharded_checkpoint_are_read(model, tmp_path):
    from safetensors.numpy import load_file, save_file

    hf.save_pretrained(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    old = {
        name.replace("model.visual", "visual").replace("model.language_model", "model"): t
        for name, t in tensors.items()
    }
    half = len(old) // 2
    shards = {"a.safetensors": dict(list(old.items())[:half]), "b.safetensors": dict(list(old.items())[half:])}
    for file, part in shards.items():
        save_file(part, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded, _ = hf.load_pretrained(tmp_path)
    assert all(bool((a == b).all()) for a, b in zip(leaves(model), leaves(loaded), strict=True))
    (tmp_path / "b.safetensors").write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=r"b.safetensors is damaged"):
        hf.load_pretrained(tmp_path)
