"""Decompression in pieces stops at the bound, whatever the pieces are."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools_server.fetch.decoding import Undecodable, decoder


@given(st.binary(max_size=2000), st.integers(1, 200), st.sampled_from(["gzip", "deflate", ""]))
def test_pieces_of_any_size_give_the_whole(data: bytes, size: int, encoding: str):
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "": bytes}[encoding](data)
    unpack = decoder(encoding, 2000)
    assert b"".join(unpack(packed[i : i + size]) or b"" for i in range(0, len(packed), size)) == data


def test_a_bomb_takes_no_more_memory_than_the_bound():
    bomb = gzip.compress(bytes(50_000_000))
    unpack = decoder("gzip", 100_000)
    tracemalloc.start()
    try:
        assert unpack(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_bytes_that_are_not_packed_are_refused_or_read_within_the_bound(data: bytes, encoding: str):
    try:
        made = decoder(encoding, 1000)(data)
    except Undecodable:
        return
    assert made is None or len(made) <= 1000


def test_another_encoding_is_refused():
    with pytest.raises(Undecodable):
        decoder("br", 1000)
