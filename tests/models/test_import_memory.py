"""The checkpoint that the import benchmark writes, and the part of it that one of two hosts holds."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.import_memory import measure, sizes, write_checkpoint
from mmsearch_jax.models import hf
from mmsearch_jax.models.config import ModelConfig
from tests.models.test_qwen2_5_vl import CONFIG


def test_the_empty_checkpoint_is_read_whole_over_several_files(tmp_path):
    total = write_checkpoint(tmp_path, CONFIG, file_bytes=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    model, config = hf.load_pretrained(tmp_path, jnp.bfloat16)
    leaves = [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array)]
    assert config == CONFIG
    assert sum(leaf.nbytes for leaf in leaves) == total
    assert all(leaf.dtype == jnp.bfloat16 and not np.any(leaf) for leaf in leaves)


def test_one_host_of_two_reads_its_own_shards_alone(tmp_path):
    total = write_checkpoint(tmp_path, CONFIG)
    # The parts that are not split over hosts (norms, biases) are small.
    assert total / 2 < measure(tmp_path, hosts=2)["part"] < 0.6 * total


def test_the_full_size_is_the_7b_s():
    assert sizes(None) == ModelConfig()
    numbers = sum(int(np.prod(shape)) for shape in hf.tensor_shapes(sizes(None)).values())
    # The published count of Qwen2.5-VL-7B-Instruct's parameters.
    assert numbers == 8_292_166_656
