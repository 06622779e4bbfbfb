"""Dialogues about scenes: true, each fact once, in the evaluation's words."""

import re

import numpy as np
import pytest

from mmsearch_jax.miniworld import pretraining, questions, sight
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.sight import Sight
from mmsearch_jax.miniworld.tokenizer import train_tokenizer
from mmsearch_jax.miniworld.worlds import compose_scene

SEEN = (
    Sight(["flag"], [None], ["red"]),
    Sight(["flag", "animal"], ["on the left", "on the right"], ["red", "green"]),
    Sight(
        ["monument", "flag", "flag"],
        ["at the top left", "at the top right", "at the bottom left"],
        ["grey", "blue", "blue"],
    ),
    Sight(
        ["monument", "flag", "animal", "animal"], [None, "in the middle", None, None], ["white", "blue", "red", "brown"]
    ),
)

NAMELESS = Sight(["flag", "flag"], [None, None], ["red", "red"])
"""Two pictures that no phrase tells apart."""


def turns(task, count=60):
    for number in range(count):
        seen = SEEN[number % len(SEEN)]
        dialogue = task(np.random.default_rng(number), seen)
        if dialogue is not None:
            yield seen, dialogue.turns


@pytest.mark.parametrize("task", sight.SIGHT_TASKS.values())
def test_no_earlier_text_contains_a_later_answer(task):
    for seen, asked in turns(task):
        places = [place for text in asked for place in seen.places if place and place in " ".join(text)]
        assert len(places) == len(set(places)), asked
        if any(question.startswith("Where") for question, _ in asked):
            # The place of the only flag tells what all the other pictures are.
            assert not any("flag or a photo" in question or "colour" in question for question, _ in asked)
        counts = [i for i, (question, _) in enumerate(asked) if "pictures" in question]
        assert counts in ([], [0])


def test_answers_are_true():
    found = set()
    for seen, asked in turns(sight.looking, 400):
        for question, answer in asked:
            # No place here is a part of another.
            i = next((i for i, place in enumerate(seen.places) if place and place in question), 0)
            if "pictures" in question:
                kind, expected = "count", str(len(seen.kinds))
            elif "flags" in question:
                kind, expected = "flags", str(list(seen.kinds).count("flag"))
            elif question.startswith("Where"):
                kind, wanted = "where", "photo" in question
                (expected,) = [p for p, k in zip(seen.places, seen.kinds, strict=True) if (k != "flag") == wanted]
            elif "colour" in question:
                kind, expected = "colour", seen.colours[i]
            else:
                kind, expected = "kind", "a flag" if seen.kinds[i] == "flag" else "a photo"
            assert answer == expected, (question, seen)
            found.add(kind)
    assert found == {"count", "flags", "where", "colour", "kind"}


def test_every_form_of_the_evaluation_is_taught_in_its_words():
    taught = {question for _, asked in turns(sight.looking, 600) for question, _ in asked}
    for _, templates in (("count", questions._COUNT), ("flags", questions._COUNT_FLAGS), ("where", questions._WHERE)):
        assert taught >= set(templates)
    assert taught >= {form.format(expression="the flag on the left") for form in questions._COLOUR}
    assert taught >= {form.format(expression="this flag") for form in questions._COLOUR}


def test_lessons_of_places_ask_for_nothing_else():
    asked = {question for _, each in turns(sight.placing, 200) for question, _ in each}
    assert asked
    assert not any(question.startswith(("How many", "Count")) for question in asked)
    assert sight.placing(np.random.default_rng(0), NAMELESS) is None


def test_descriptions_name_each_place_once_with_what_is_there():
    for number in range(40):
        seen = SEEN[number % len(SEEN)]
        dialogue = sight.describing(np.random.default_rng(number), seen)
        assert dialogue is not None
        ((_, answer),) = dialogue.turns
        alone = len(seen.kinds) == 1
        pictures = zip(seen.places, seen.colours, seen.kinds, strict=True)
        told = [
            f"{place or ''} {colour} {'flag' if kind == 'flag' else 'photo'}".strip()
            for place, colour, kind in pictures
            if place or alone
        ]
        assert sorted(answer.split(", ")) == sorted(told)
    assert sight.describing(np.random.default_rng(0), NAMELESS) is None


def test_facts_are_those_of_the_scene():
    scene = compose_scene(GeneratedWorld(8, 0), np.random.default_rng(5), clutter=1.0)
    seen = Sight.of(scene)
    assert len(seen.kinds) == len(seen.places) == len(seen.colours) == len(scene.boxes)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(pretraining.tokenizer_texts(0, 1500), 704)


def test_every_word_about_scenes_is_one_token(tokenizer):
    for word in sight.WORDS:
        assert len(tokenizer.encode(word).ids) == 1, word
        if word.islower():
            assert len(tokenizer.encode(f" {word}").ids) == 1, word


def test_the_words_are_those_of_the_questions():
    texts = " ".join(" ".join(turn) for _, asked in turns(sight.looking, 400) for turn in asked)
    assert set(re.findall(r"[A-Za-z]+", texts)) <= set(sight.WORDS)
