"""Half characters are found and replaced; whole ones stay."""

import pytest

from mmsearch_jax.core.characters import half_character, whole_characters


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("plain é 日本 😀", "plain é 日本 😀"),
        ("red \ud83d", "red �"),
        ("\ude00 red", "� red"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d!", "��!"),
    ],
)
def test_half_characters_are_replaced_and_pairs_joined(text, whole):
    assert whole_characters(text) == whole and whole_characters({text: [text, 1]}) == {whole: [whole, 1]}
    assert half_character(whole) is None
    whole_characters(text).encode()


def test_the_first_half_character_is_named():
    assert half_character("ab\ude00") == "U+DE00 at 2"
