"""Image search: nearest neighbours across artworks, and errors for unusable corpora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from benchmarks.image_retrieval import measure
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.miniworld.worlds import write_corpus as write_world
from tests.tools_server.small_corpus import COLOURS, bands, write_corpus
from tools_server.image_index import ImageIndex
from tools_server.toy_vision import embedding


def test_embeddings_are_unit_vectors_and_equal_pictures_meet():
    pictures = np.stack([embedding.thumbnail(bands(colours)) for colours in COLOURS.values()])
    vectors = embedding.embed(pictures)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert (vectors @ vectors.T).argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_picture_of_one_colour_has_a_finite_embedding(shade: int):
    plain = np.full((1, embedding.HEIGHT, embedding.WIDTH, 3), shade, np.uint8)
    assert np.isfinite(embedding.embed(plain)).all()


def test_a_darker_cut_and_framed_copy_is_found(tmp_path: Path):
    index = ImageIndex.from_corpus(write_corpus(tmp_path / "corpus"))
    for title, colours in COLOURS.items():
        copy = ImageEnhance.Brightness(bands(colours, (200, 130))).enhance(0.85).crop((8, 6, 196, 126))
        framed = Image.new("RGB", (200, 132), (248, 248, 246))
        framed.paste(copy, (6, 6))
        hits = index.search(framed, 2)
        assert hits[0][0].title == title
        assert len(hits) == 2
        assert hits[0][1] >= hits[1][1]


def test_recall_across_the_artworks_of_the_real_world(tmp_path: Path):
    world = RealWorld()
    write_world(world, tmp_path)
    figures = measure(world, ImageIndex.from_corpus(tmp_path))
    assert figures["flag"]["recall@1"] >= 0.85
    assert figures["all"]["recall@5"] >= 0.95
    assert figures["all"]["n"] == len(world.entities)


def test_a_missing_picture_is_named(tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the picture .*1\.png"):
        ImageIndex.from_corpus(corpus)


def test_an_empty_corpus_finds_nothing(tmp_path: Path):
    assert ImageIndex.from_corpus(tmp_path).search(Image.new("RGB", (40, 40)), 5) == []
