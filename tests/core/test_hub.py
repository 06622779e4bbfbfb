"""The hint for a checkpoint that is named as on the Hub."""

import pytest

from mmsearch_jax.core.errors import CheckpointError
from mmsearch_jax.core.hub import missing_checkpoint
from mmsearch_jax.models.policies import export_hf, import_hf, load_policy

DOWNLOAD = "hf download Qwen/Qwen2.5-VL-7B-Instruct --local-dir "


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", DOWNLOAD + "Qwen2.5-VL-7B-Instruct`"),
        ("Qwen2.5-VL-7B-Instruct", DOWNLOAD + "Qwen2.5-VL-7B-Instruct`"),
        ("/mnt/models/Qwen2.5-VL-7B-Instruct", DOWNLOAD + "/mnt/models/Qwen2.5-VL-7B-Instruct`"),
        ("someone/their-model", "hf download someone/their-model --local-dir their-model`"),
    ],
)
def test_a_name_of_the_hub_gets_the_line_that_downloads_it(named, line):
    assert line in missing_checkpoint(named)


def test_a_path_below_an_existing_directory_gets_no_such_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert all(
        "hf download" not in missing_checkpoint(each) for each in ("runs/sft", "/nowhere/at/all", tmp_path / "x")
    )


@pytest.mark.parametrize("use", [load_policy, lambda name: export_hf(name, "x"), lambda name: import_hf(name, "x")])
def test_every_reader_of_a_checkpoint_says_so(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=DOWNLOAD):
        use("Qwen/Qwen2.5-VL-7B-Instruct")
    assert not list(tmp_path.iterdir())
