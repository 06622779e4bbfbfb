"""Invented words look like real ones."""

import numpy as np

from mmsearch_jax.miniworld import facts, names


def test_names_are_reproducible_and_mostly_distinct():
    first = [names.proper_name(np.random.default_rng(i)) for i in range(300)]
    second = [names.proper_name(np.random.default_rng(i)) for i in range(300)]
    assert first == second
    assert len(set(first)) > 290


def test_names_have_the_marks_of_real_ones():
    rng = np.random.default_rng(0)
    made = [names.proper_name(rng) for _ in range(2000)]
    assert any("-" in name for name in made)
    assert any("'" in name for name in made)
    assert any(len(name.split()) > 1 for name in made)
    assert any(not name.isascii() for name in made)
    assert all(name == name.strip() and name for name in made)


def test_numbers_carry_thousands_separators():
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = names.number(rng, 3, 9)
        assert text == f"{int(text.replace(',', '')):,}"


def test_a_land_misses_some_facts_and_never_has_an_empty_one():
    rng = np.random.default_rng(0)
    lands = [facts.invent_land_facts(rng, "Xanadu") for _ in range(200)]
    assert any("capital" not in land for land in lands)
    assert all(value.strip() for land in lands for value in land.values())
    assert all(key in facts.ATTRIBUTES for land in lands for key in land)
