"""Parts of tensors read from safetensors files, against the library's own slices."""

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.models import tensor_files
from mmsearch_jax.models.tensor_files import TensorFiles

SHAPES = {"bias": (7,), "kernel": (9, 5), "patches": (4, 3, 2, 2, 2)}


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def folder(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    made = tmp_path_factory.mktemp(request.param)
    dtype = np.dtype(ml_dtypes.bfloat16) if request.param == "bfloat16" else np.dtype(request.param)
    save_file(
        {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}, made / "model.safetensors"
    )
    return made


@settings(deadline=None)
@given(data=st.data(), block=st.sampled_from([1, 24, 10**6]))
def test_any_part_equals_the_library_s_own_slice(data, block, folder):
    """Also if a tensor is read in many blocks, or if the index omits the last dims."""
    name = data.draw(st.sampled_from(sorted(SHAPES)))
    dims = SHAPES[name][: data.draw(st.integers(1, len(SHAPES[name])))]
    index = tuple(data.draw(st.slices(size).filter(lambda cut: cut.step in (None, 1))) for size in dims)
    with pytest.MonkeyPatch.context() as patch, TensorFiles(folder) as files:
        patch.setattr(tensor_files, "_BLOCK_BYTES", block)
        found = files.read(name, index)
    with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as reference:
        expected = reference.get_tensor(name)[index]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_names_shapes_and_dtypes_are_those_of_the_header(folder):
    with TensorFiles(folder) as files:
        assert files.shapes == SHAPES
        assert folder.name.startswith(files.dtype("kernel").name)


def test_a_file_cut_short_while_it_is_read_is_named(folder, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((folder / "model.safetensors").read_bytes())
    with TensorFiles(tmp_path) as files:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(CheckpointError, match="model.safetensors is damaged .the file ends too early."):
            for name in SHAPES:
                files.read(name, ())
