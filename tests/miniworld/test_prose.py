"""Sentences about invented things look like captions: they use the name, a part of it, or another spelling."""

import numpy as np

from mmsearch_jax.miniworld import facts, prose


def test_most_sentences_name_the_thing_and_some_name_it_twice():
    rng = np.random.default_rng(0)
    made = [prose.about(rng, "Pont de Kravo") for _ in range(400)]
    counts = [text.count("Kravo") + text.count("Pont") for text in made]
    assert np.mean([count > 0 for count in counts]) > 0.7
    assert np.mean([text.count("Pont de Kravo") > 1 for text in made]) > 0.15
    assert len(set(made)) == len(made)


def test_another_spelling_is_another_and_near():
    assert prose._spelled_otherwise("São Tavo") == "Sao Tavo"
    assert prose._spelled_otherwise("Mont-Kravo") == "Mont Kravo"
    assert prose._spelled_otherwise("Great Kravo Gate") == "Great-Kravo Gate"


def test_values_echo_the_name_as_real_ones_do():
    rng = np.random.default_rng(1)
    made = [facts.invent_land_facts(rng, "Kravonia", missing=0.0) for _ in range(400)]
    assert 0.3 < np.mean([land["currency"].startswith("Kravoni") for land in made]) < 0.6
    assert 0.05 < np.mean([land["capital"].startswith("Kravonia") for land in made]) < 0.2
    assert np.mean([land["internet_code"].startswith(".k") for land in made]) > 0.5
    assert any(", " in land["anthem"] and len(set(land["anthem"].split(", "))) == 1 for land in made)
