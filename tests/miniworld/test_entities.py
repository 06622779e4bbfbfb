"""Entities on disk: a round trip keeps them, and errors name the bad line."""

import json

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.miniworld.entities import Entity, read_entities, write_entities


def test_entities_come_back_as_written(tmp_path):
    entities = [
        Entity("flag-ci", "flag", "Côte d'Ivoire", "Flag of Côte d'Ivoire", facts={"area": "322,463 sq km"}),
        Entity("monument-x", "monument", "Pont du Gard", "Pont du Gard", place="France", alias_of="group"),
    ]
    write_entities(entities, tmp_path / "deep" / "entities.jsonl")
    assert read_entities(tmp_path / "deep") == entities


def test_an_entity_without_a_group_is_its_own_group():
    assert Entity("flag-fr", "flag", "France", "Flag of France").alias_of == "flag-fr"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "city"}, "kind 'city'"),
        ({"name": ""}, "'name'"),
        ({"facts": {"area": 3}}, "'facts'"),
        ({"title": None}, "'title'"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"text": 4}, "'text'"),
        ({"source": None}, "'source'"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path, change, said):
    record = {"id": "flag-fr", "kind": "flag", "name": "France", "title": "Flag of France"} | change
    (tmp_path / "entities.jsonl").write_text("\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"entities\.jsonl:2: ") as caught:
        read_entities(tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize("line", ["{", "[1]", "null"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "entities.jsonl").write_text(line)
    with pytest.raises(DataError, match=":1: "):
        read_entities(tmp_path)


def test_an_id_must_not_occur_twice(tmp_path):
    entity = Entity("flag-fr", "flag", "France", "Flag of France")
    write_entities([entity, entity], tmp_path / "entities.jsonl")
    with pytest.raises(DataError, match="twice"):
        read_entities(tmp_path)


def test_a_missing_file_says_what_to_give(tmp_path):
    with pytest.raises(DataError, match="give an entities.jsonl"):
        read_entities(tmp_path / "nothing.jsonl")
