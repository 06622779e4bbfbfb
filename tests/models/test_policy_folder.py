"""Where a folder's weights come from, and that a folder reads as the policy that was written last, whole, in its own dtypes."""

import json
import os
import shutil

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models import hf
from mmsearch_jax.models.adapters import save_adapter
from mmsearch_jax.models.lora import add_lora, lora_layers, merge_lora
from mmsearch_jax.models.policies import export_hf, import_hf, load_policy, save_policy
from mmsearch_jax.models.policy_folder import replacing, weights_layout
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.policy import LoRAConfig
from tests.models.test_qwen2_5_vl import CONFIG

EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A Hugging Face folder of a small model."""
    folder = tmp_path_factory.mktemp("policies") / "old"
    hf.save_pretrained(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), folder)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copyfile(f"assets/tiny-base/{name}", folder / name)
    return folder


@pytest.fixture(scope="module")
def new(old):
    """The same with other weights: zeros."""
    folder = shutil.copytree(old, old.parent / "new")
    change(folder, lambda name, tensor: np.zeros_like(tensor))
    return folder


def change(folder, by):
    tensors = {name: by(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    return tensors


def as_shards(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(
        load_file(folder / "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors"
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def held_in(layout, old, out):
    """A folder of the old policy in one of the layouts."""
    if layout == "params":
        import_hf(old, out)
    elif layout == "adapter":
        save_adapter(add_lora(load_policy(old).model, LoRAConfig(2)), out, str(old))
    else:
        shutil.copytree(old, out)
        if layout == "shards":
            as_shards(out)
        elif layout == "damaged index":
            as_shards(out)
            (out / "model.safetensors.index.json").write_text("{")
    return out


@pytest.mark.parametrize("layout", ["params", "single", "shards", "damaged index", "adapter"])
def test_an_export_replaces_the_policy_of_a_folder_or_is_refused(layout, old, new, tmp_path):
    out = held_in(layout, old, tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    (out / "chat_template.jinja").write_text("of the old one")
    before = sorted(os.listdir(out))
    for write in (export_hf, import_hf):
        with pytest.raises(CheckpointError, match="already holds a policy"):
            write(new, out)
    assert sorted(os.listdir(out)) == before
    export_hf(new, out, replace=True)
    assert not np.asarray(load_policy(out).model.language.embedding[...]).any()
    names = {"config.json", "model.safetensors", "notes.txt", "preprocessor_config.json", "tokenizer.json"}
    assert set(os.listdir(out)) == names


@pytest.mark.parametrize(
    "stale",
    ["model-00002-of-00002.safetensors", "consolidated.safetensors", "pytorch_model.bin", "adapter_model.safetensors"],
)
def test_weights_that_other_programs_would_read_do_not_stay_beside_an_export(stale, old, new, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / stale).write_bytes(b"of another policy")
    for write in (export_hf, import_hf):
        with pytest.raises(CheckpointError, match=f"already holds a policy .*{stale}"):
            write(new, tmp_path / "out")
    export_hf(new, tmp_path / "out", replace=True)
    assert not (tmp_path / "out" / stale).exists()
    assert not np.asarray(load_policy(tmp_path / "out").model.language.embedding[...]).any()


def test_a_policy_is_saved_over_its_own_base_and_through_a_link(old, new, tmp_path):
    (tmp_path / "link").symlink_to(shutil.copytree(old, tmp_path / "base"))
    save_policy(load_policy(new).model, tmp_path / "link", tmp_path / "base")
    assert (tmp_path / "link").is_symlink()
    assert not np.asarray(load_policy(tmp_path / "base").model.language.embedding[...]).any()


@pytest.mark.parametrize("place", ["old", "fresh"])
def test_an_error_while_writing_leaves_the_folder_as_it_was(place, old, tmp_path):
    out = shutil.copytree(old, tmp_path / "old").parent / place
    before = {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None
    with pytest.raises(OSError, match="no space"), replacing(out) as draft:
        (draft / "model.safetensors").write_bytes(b"half")
        raise OSError("no space")
    after = {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None
    assert after == before
    assert os.listdir(tmp_path) == ["old"]


@pytest.mark.parametrize("added", ["params", "model.safetensors.index.json", "adapter_config.json"])
def test_weights_in_two_layouts_are_refused_with_both_names(added, old, tmp_path):
    out = shutil.copytree(old, tmp_path / "out")
    if added == "params":
        (out / added).mkdir()
    else:
        (out / added).write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    for read in (load_policy, hf.load_pretrained, weights_layout):
        with pytest.raises(CheckpointError, match=rf"{added}, model.safetensors|model.safetensors, {added}"):
            read(out)


def test_an_index_of_the_one_file_beside_it_is_one_layout(old, tmp_path):
    out = shutil.copytree(old, tmp_path / "out")
    index = {"weight_map": dict.fromkeys(load_file(out / "model.safetensors"), "model.safetensors")}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_policy(out).folder == out


@pytest.mark.parametrize("layout", ["single", "shards", "params"])
@pytest.mark.parametrize("own", ["one value", "another dtype, same values", "equal"])
def test_a_head_beside_tied_embeddings_is_kept_where_it_differs(layout, own, old, tmp_path):
    folder = shutil.copytree(old, tmp_path / "in")
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    tensors[EMBEDDING] = tensors[EMBEDDING].astype(ml_dtypes.bfloat16).astype(np.float32)
    head = tensors[EMBEDDING].copy()
    if own == "one value":
        head[-1, -1] += 1
    elif own != "equal":
        head = head.astype(ml_dtypes.bfloat16)
    save_file({**tensors, HEAD: head}, folder / "model.safetensors")
    if layout == "shards":
        as_shards(folder)
    if layout == "params":
        import_hf(folder, tmp_path / "ours")
    export_hf(tmp_path / "ours" if layout == "params" else folder, tmp_path / "out")
    written, record = (
        load_file(tmp_path / "out" / "model.safetensors"),
        json.loads((tmp_path / "out/config.json").read_text()),
    )
    kept = own == "one value"
    assert record["tie_word_embeddings"] is record["text_config"]["tie_word_embeddings"] is not kept
    assert (HEAD in written) == kept
    if kept:
        np.testing.assert_array_equal(written[HEAD], head)


@pytest.mark.parametrize(
    "wide", ["layers.1.self_attn.q_proj.weight", "blocks.0.mlp.up_proj.weight", "language_model.norm"]
)
@pytest.mark.parametrize("through", ["export", "import and export"])
def test_every_tensor_keeps_its_own_dtype(wide, through, old, tmp_path):
    folder = shutil.copytree(old, tmp_path / "in")
    stored = change(folder, lambda name, t: t if wide in name else t.astype(ml_dtypes.bfloat16))
    if through != "export":
        import_hf(folder, tmp_path / "ours")
        folder = tmp_path / "ours"
    export_hf(folder, tmp_path / "out")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in back.items()} == {name: t.dtype for name, t in stored.items()}
    for name, tensor in stored.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"


def test_the_config_of_the_base_is_kept_and_both_spellings_of_rope_are_written(old, tmp_path):
    folder = shutil.copytree(old, tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16", "a_field_of_tomorrow": [1]}
    config["vision_config"] |= {"tokens_per_second": 2, "dtype": "bfloat16"}
    config["text_config"].pop("rope_scaling")
    config["text_config"].pop("rope_theta")
    (folder / "config.json").write_text(json.dumps(config))
    model, read = hf.load_pretrained(folder, param_dtype=jnp.float32)
    assert read == CONFIG
    save_policy(model, tmp_path / "out", folder)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    text, vision = written["text_config"], written["vision_config"]
    assert written["a_field_of_tomorrow"] == [1] and vision["tokens_per_second"] == 2
    assert {written["dtype"], written["torch_dtype"], vision["dtype"]} == {"float32"}
    sections = text["rope_parameters"]["mrope_section"]
    assert text["rope_scaling"] == {"type": "mrope", "mrope_section": sections}
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == CONFIG.text.rope_theta
    assert hf.load_pretrained(tmp_path / "out")[1] == CONFIG


@pytest.mark.parametrize("also", [None, {"max_pixels": 100352}])
def test_the_processor_of_transformers_5_is_read_and_copied(also, old, tmp_path):
    folder = shutil.copytree(old, tmp_path / "in")
    one = json.loads((folder / "preprocessor_config.json").read_text())
    if also is None:
        (folder / "preprocessor_config.json").unlink()
    nested = {key: value for key, value in one.items() if key not in ("min_pixels", "max_pixels")}
    nested["size"] = {"shortest_edge": 784, "longest_edge": 7840}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    import_hf(folder, tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "out")
    for each in (folder, tmp_path / "ours", tmp_path / "out"):
        processor = load_policy(each).image_processor
        assert (processor.min_pixels, processor.max_pixels) == (784, 7840)


@pytest.mark.parametrize("content", ["[]", "{", '{"image_processor": 3}', '{"processor_class": "Qwen2_5_VLProcessor"}'])
def test_a_processor_config_without_an_image_processor_is_refused_with_its_name(content, old, tmp_path):
    folder = shutil.copytree(old, tmp_path / "in")
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="processor_config.json"):
        load_policy(folder)


@pytest.mark.parametrize("has", ["", "chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_a_trained_policy_brings_its_stop_strings_and_a_template_if_its_base_has_none(has, old, tmp_path):
    base = shutil.copytree(old, tmp_path / "base")
    if has:
        (base / has).write_text('{"chat_template": "theirs"}')
    (base / "generation_config.json").write_text('{"top_k": 5, "eos_token_id": [2, 1]}')
    save_policy(load_policy(base).model, tmp_path / "out", base, chat_template="ours", stop_strings=["</answer>"])
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {"top_k": 5, "eos_token_id": [2, 1], "stop_strings": ["</answer>"]}
    template = tmp_path / "out" / "chat_template.jinja"
    assert template.exists() == (has in ("", "chat_template.jinja"))
    assert not template.exists() or (template.read_text() == "ours") == (has == "")


def test_merging_in_float32_loses_nothing_of_an_update(old):
    model = load_policy(old, param_dtype=jnp.bfloat16).model
    adapted = add_lora(model, LoRAConfig(2))
    layer = lora_layers(adapted)["q_proj"]
    layer.lora_b[...] = jnp.full(layer.lora_b.shape, 1e-3)
    update = np.asarray(layer.lora_a[...] @ layer.lora_b[...] * layer.scale)
    kernel = np.asarray(model.language.layers.q_proj.kernel[...], np.float32)
    errors = {}
    for dtype in (None, np.float32):
        merged = np.asarray(merge_lora(adapted, dtype).language.layers.q_proj.kernel[...], np.float32)
        errors[dtype] = np.abs(merged - kernel - update).max()
    assert errors[np.float32] < 1e-7 < np.abs(update).max() / 100 < errors[None]


@pytest.mark.parametrize(("name", "value"), [("patch_size", 16), ("merge_size", 4)])
def test_a_processor_that_cuts_other_patches_than_the_tower_takes_is_refused(old, name, value, tmp_path):
    folder = shutil.copytree(old, tmp_path / "policy")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CheckpointError, match=f"{name} is {value}, the vision tower takes"):
        load_policy(folder)
