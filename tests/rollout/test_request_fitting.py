"""Requests are cut and shrunk to what a server accepts, and boxes come back in the caller's pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.core.pictures import picture_size
from mmsearch_jax.core.search_api import RequestLimits, SearchReply
from mmsearch_jax.rollout.request_fitting import fit_image, fit_query
from tools_server.request_images import decode_image

LIMITS = RequestLimits(max_body_bytes=300_000, max_pixels=40_000, max_query_chars=40)


def encoded(size: tuple[int, int], form: str = "PNG", noise: bool = False) -> bytes:
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize("size", [(200, 200), (8, 8), (8, 1600), (1600, 8)])
def test_what_fits_is_sent_as_it_is(size: tuple[int, int]):
    data = encoded(size)
    fitted = fit_image(data, LIMITS)
    reply = SearchReply((), "image_search", box=(1, 2, 3, 4))
    assert fitted.data is data
    assert fitted.restore(reply) is reply


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 700), st.integers(1, 700)), st.booleans())
def test_every_picture_that_can_be_shown_is_accepted_after_fitting(size: tuple[int, int], noise: bool):
    fitted = fit_image(encoded(size, noise=noise), LIMITS)
    assert decode_image(fitted.data, LIMITS.max_pixels)
    assert len(fitted.data) * 4 / 3 <= LIMITS.max_body_bytes
    if fitted.size is not None:
        whole = fitted.restore(SearchReply((), "ground", box=fitted.placed, other_boxes=(fitted.placed,)))
        assert whole.box == whole.other_boxes[0] == (0, 0, *size)
        width, height = picture_size(fitted.data)
        outer = fitted.restore(SearchReply((), "ground", box=(0, 0, width, height))).box
        assert outer == (0, 0, *size)


def test_a_box_of_a_shrunk_turned_picture_is_given_in_the_pixels_of_the_upright_one():
    image, exif = Image.new("RGB", (800, 400), (255, 255, 255)), Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    fitted = fit_image(out.getvalue(), LIMITS)
    assert fitted.size == (400, 800)
    width, height = picture_size(fitted.data)
    box = fitted.restore(SearchReply((), "ground", box=(0, height // 2, width, height))).box
    assert box is not None
    assert np.abs(np.array(box) - (0, 400, 400, 800)).max() <= 4


def test_a_heavy_picture_is_sent_with_fewer_bytes():
    data = encoded((190, 190), noise=True)
    tight = RequestLimits(max_body_bytes=100_000, max_pixels=40_000)
    assert len(data) > 75_000
    assert len(fit_image(data, tight).data) < 28_000


def test_what_is_no_picture_is_left_to_the_server_and_a_torn_large_one_is_an_image_error():
    assert fit_image(b"hello", LIMITS).data == b"hello"
    with pytest.raises(ImageError):
        fit_image(encoded((700, 700), noise=True)[:3000], LIMITS)


def test_queries_are_cut_at_a_word_and_half_characters_are_replaced():
    assert fit_query("a  short query", LIMITS) == "a  short query"
    assert fit_query("word " * 20, LIMITS) == "word word word word word word word word"
    assert fit_query("x" * 50, LIMITS) == "x" * 40
    assert fit_query("half \ud800", LIMITS) == "half ?"
