"""Tokens to text: only whole characters, and no text from a stop string on."""

from hypothesis import given
from hypothesis import strategies as st

from mmsearch_jax.serving.text import TextStream

BYTES = [bytes([i]) for i in range(256)]


def streamed(text: str, stop=()) -> list[str]:
    stream = TextStream(BYTES, stop)
    return [*(stream.feed(byte) for byte in text.encode()), stream.end()]


def test_a_character_of_several_tokens_comes_whole():
    assert streamed("é€") == ["", "é", "", "", "€", ""]
    broken = TextStream(BYTES)
    assert broken.feed("é".encode()[0]) + broken.end() == "�"


@given(st.text("abé", max_size=12), st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text, stops):
    first = min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))
    # If stop strings overlap, the one that is complete first ends the text.
    complete = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=len(text))
    shown = "".join(streamed(text, stops))
    assert text.startswith(shown) and not any(stop in shown for stop in stops)
    assert first <= len(shown) <= complete


def test_what_might_become_a_stop_string_is_held_back():
    stream = TextStream(BYTES, ["END"])
    assert [stream.feed(byte) for byte in b"aEN"] == ["a", "", ""]
    assert stream.feed(ord("x")) == "ENx" and not stream.stopped
    assert [stream.feed(byte) for byte in b"ENDb"] == ["", "", "", ""] and stream.stopped and stream.end() == ""
