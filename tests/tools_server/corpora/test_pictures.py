"""An index of pictures on disk answers like the one in memory; unreadable pictures are skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mmsearch_jax.core.errors import DataError
from tests.tools_server.small_corpus import COLOURS, bands, write_corpus
from tools_server.corpora.manifest import FILE
from tools_server.corpora.picture_build import REJECTED_FILE, build_picture_index
from tools_server.corpora.picture_index import PictureIndex
from tools_server.image_index import ImageIndex


def build(out: Path, source: Path, **options) -> int:
    return build_picture_index(out, source, show_progress=False, **options)[1]


@pytest.mark.parametrize("exact_up_to", [100, 0])
def test_the_index_on_disk_answers_as_the_one_in_memory(tmp_path: Path, exact_up_to: int):
    corpus = write_corpus(tmp_path / "corpus")
    assert build(tmp_path / "out", corpus, exact_up_to=exact_up_to) == 0
    memory, disk = ImageIndex.from_corpus(corpus), PictureIndex(tmp_path / "out")
    assert len(disk) == len(COLOURS)
    for colours in COLOURS.values():
        query = bands(colours, (200, 130)).crop((8, 6, 196, 126))
        found, expected = disk.search(query, 2), memory.search(query, 2)
        assert [picture for picture, _ in found] == [picture for picture, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=5e-3)
        assert disk.thumbnail(found[0][0]) == memory.thumbnail(expected[0][0])


def test_thumbnails_and_titles_do_not_need_the_pictures(tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus")
    build(tmp_path / "out", corpus / "images.jsonl")
    for file in (corpus / "images").iterdir():
        file.unlink()
    index = PictureIndex(tmp_path / "out")
    found, _ = index.search(bands(COLOURS["Flag of Harland"]), 1)[0]
    assert found.title == "Flag of Harland" and index.thumbnail(found)


def test_a_folder_of_pictures_is_enough_and_what_cannot_be_read_is_set_aside(tmp_path: Path):
    photos = tmp_path / "photos" / "inner"
    photos.mkdir(parents=True)
    for title, colours in COLOURS.items():
        bands(colours).save(photos / f"{title.replace(' ', '_')}.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("no picture either")
    assert build(tmp_path / "out", tmp_path / "photos") == 1
    index = PictureIndex(tmp_path / "out")
    assert index.search(bands(COLOURS["Flag of Velmora"]), 1)[0][0].title == "Flag of Velmora"
    (record,) = map(json.loads, (tmp_path / "out" / REJECTED_FILE).read_text().splitlines())
    assert record["file"].endswith("broken.jpg") and "cannot read the picture" in record["reason"]


def test_a_photograph_that_lies_on_its_side_is_found_upright(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    upright = bands(COLOURS["Flag of Velmora"])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    upright.rotate(90, expand=True).save(tmp_path / "photos" / "side.jpg", exif=exif)
    bands(COLOURS["Flag of Harland"]).save(tmp_path / "photos" / "other.jpg")
    build(tmp_path / "out", tmp_path / "photos")
    found, score = PictureIndex(tmp_path / "out").search(upright, 1)[0]
    assert found.title == "side" and score > 0.95


def test_a_source_without_a_readable_picture_or_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="no picture could be read"):
        build(tmp_path / "out", tmp_path / "photos")
    with pytest.raises(DataError, match="no pictures at"):
        build(tmp_path / "out", tmp_path / "nowhere")


def test_a_damaged_or_foreign_index_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no index at"):
        PictureIndex(tmp_path)
    build(tmp_path / "out", write_corpus(tmp_path / "corpus"))
    (tmp_path / "out" / "vectors.f16").write_bytes(b"short")
    with pytest.raises(DataError, match=r"vectors\.f16 has 5 bytes instead of"):
        PictureIndex(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / FILE).read_text())
    (tmp_path / "out" / FILE).write_text(json.dumps({**manifest, "kind": "passages"}))
    with pytest.raises(DataError, match="is an index of passages, not of pictures"):
        PictureIndex(tmp_path / "out")
