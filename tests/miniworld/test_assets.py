"""The real pictures and facts in the repository, and the readers that extract them."""

import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.miniworld import build_assets, factbook, photographs
from mmsearch_jax.miniworld.entities import read_entities
from mmsearch_jax.miniworld.facts import ATTRIBUTES

ASSETS = Path(__file__).parents[2] / "assets" / "miniworld"


@pytest.fixture(scope="module")
def entities():
    return read_entities(ASSETS)


def test_every_entity_has_its_pictures(entities):
    for entity in entities:
        for file in {entity.index_image, entity.scene_image}:
            with Image.open(ASSETS / file) as picture:
                assert min(picture.size) >= 150, file


def test_every_fact_is_short_clean_and_known(entities):
    for entity in entities:
        for key, value in entity.facts.items():
            assert key in ATTRIBUTES
            assert 0 < len(value) <= factbook.MAX_VALUE and value == value.strip(), (entity.name, key, value)
            assert not set(value) & set("<>&;\n"), (entity.name, key, value)


def test_there_are_enough_lands_with_enough_facts(entities):
    lands = [entity for entity in entities if entity.kind == "flag"]
    assert len(lands) >= 150 and min(len(land.facts) for land in lands) >= 5
    coverage = Counter(key for land in lands for key in land.facts)
    assert all(count >= 0.8 * len(lands) for key, count in coverage.items() if key != "longest_river")


def test_every_monument_stands_in_a_land_of_the_world(entities):
    lands = {entity.name for entity in entities if entity.kind == "flag"}
    monuments = [entity for entity in entities if entity.kind == "monument"]
    assert len(monuments) >= 40
    assert all(m.place in lands and m.facts["country"] == m.place and m.text for m in monuments)


def test_equal_flags_are_one_group(entities):
    group = {entity.id: entity.alias_of for entity in entities}
    assert group["flag-td"] == group["flag-ro"] and group["flag-id"] == group["flag-mc"]
    assert group["flag-fr"] != group["flag-nl"]


@pytest.mark.parametrize(
    ("land", "key", "value"),
    [
        ("flag-de", "capital", "Berlin"),
        ("flag-ke", "currency", "Kenyan shillings (KES)"),
        ("flag-np", "highest_point", "Mount Everest"),
        ("flag-br", "area", "8,515,770 sq km"),
        ("flag-gm", "capital", "Banjul"),
        ("flag-fr", "anthem", "La Marseillaise (The Song of Marseille)"),
        ("flag-ng", "independence", "1 October 1960"),
    ],
)
def test_facts_are_those_of_the_right_country(entities, land, key, value):
    assert {e.id: e.facts for e in entities}[land][key] == value


def test_every_picture_is_in_the_list_of_licences(entities):
    listed = (ASSETS / "LICENSES.md").read_text(encoding="utf-8")
    for entity in entities:
        assert entity.kind == "flag" or f"| {entity.index_image} | {entity.author} |" in listed
    assert all(f"backgrounds/{path.name}" in listed for path in (ASSETS / "backgrounds").iterdir())


def test_the_folder_stays_small():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 8_000_000


def test_markup_is_removed_and_sentences_stay_whole():
    assert factbook.plain("<strong>a</strong> caf&eacute;<br><br>b") == "a café; b"
    assert factbook.sentences("One is here. Two is longer here. Three.", 20) == "One is here."


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"Government": {"Capital": {"name": {"text": "La Paz (seat); Sucre (law)"}}}}, {}),
        (
            {"Geography": {"Elevation": {"highest point": {"text": "Fako on Mont Cameroun 4,045 m"}}}},
            {"highest_point": "Fako on Mont Cameroun"},
        ),
        (
            {"Geography": {"Area": {"total ": {"text": "643,801 sq km ; 551,500 sq km (part)"}}}},
            {"area": "643,801 sq km"},
        ),
        (
            {
                "Geography": {
                    "Major rivers (by length in km)": {"text": "Loire - 1,012 km; Rhin (Rhine) (shared) - 1,233 km"}
                }
            },
            {"longest_river": "Rhin"},
        ),
        ({"Government": {"Independence": {"text": "no official date: 486 (x)"}}}, {}),
    ],
)
def test_only_exact_short_values_are_taken(profile, expected):
    assert factbook.facts(profile) == expected


def _archive(flags: int, payload: bytes) -> bytes:
    names = b"".join(struct.pack(">HI", len(n), 0) + n.encode("utf-16-be") for n in ("", "a.txt"))
    tree = struct.pack(">IHIIQ", 0, 2, 1, 1, 0) + struct.pack(">IHHHIQ", 6, flags, 0, 0, 0, 0)
    data = struct.pack(">I", len(payload)) + payload
    return (
        b"qres"
        + struct.pack(">IIII", 3, 24, 24 + len(tree), 24 + len(tree) + len(data))
        + b"\0" * 4
        + tree
        + data
        + names
    )


def test_resource_archives_are_unpacked(tmp_path):
    packed = zlib.compress(b"hello")
    for flags, payload in ((0, b"hello"), (1, b"\0\0\0\5" + packed)):
        (tmp_path / "x.rcc").write_bytes(_archive(flags, payload))
        assert photographs.unpack(tmp_path / "x.rcc") == {"/a.txt": b"hello"}
    (tmp_path / "y.rcc").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a Qt resource archive"):
        photographs.unpack(tmp_path / "y.rcc")


def test_a_wrong_folder_is_a_one_line_error(tmp_path, capsys):
    options = [f"--{package.option}={tmp_path}" for package in build_assets.PACKAGES]
    assert build_assets.main([str(tmp_path / "out"), *options]) == 2
    assert capsys.readouterr().err.startswith("error: no country profiles under")
    assert build_assets.main([str(tmp_path / "out"), "--flag-icons", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
