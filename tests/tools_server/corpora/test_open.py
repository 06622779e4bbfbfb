"""Opening and searching an index: engines agree, search types combine, errors name damaged and other folders."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch_jax.core.errors import ConfigError, DataError
from tests.tools_server.corpora.small_index import write_model, write_passages, write_towns
from tests.tools_server.small_corpus import PAGES
from tools_server.corpora import fts5_engine
from tools_server.corpora.embedders import EmbedderSpec
from tools_server.corpora.engines import ENGINES
from tools_server.corpora.fusion import reciprocal_rank_fusion
from tools_server.corpora.manifest import FILE
from tools_server.corpora.open import PassageIndex, open_index
from tools_server.corpora.passage_build import build_index
from tools_server.failures import SearchFailure
from tools_server.text_index import TextIndex

CLEAR = [
    "Velmora capital",
    "What is the capital of New Velmora?",
    "new velmora national anthem",
    "geography of velmora area",
    "The Tower country",
    "who built it in 1889",
    "Rise, O Hills",
    "highest point Tahl",
    "masons",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index of the same pages by each engine, and one with vectors."""
    root = tmp_path_factory.mktemp("indexes")
    source = write_passages(root / "a.jsonl")
    write_model(root / "model")
    for engine in ENGINES:
        build_index(root / engine, [source], engine, show_progress=False)
    build_index(root / "dense", [source], embedder=EmbedderSpec(str(root / "model")), show_progress=False)
    return {name: root / name for name in (*ENGINES, "dense", "model")}


def titles(index: PassageIndex, query: str, top_k: int = 3) -> list[str]:
    vector = asyncio.run(index.embed(query))
    return [hit.page.title for hit in index.search(query, top_k, vector)]


def test_the_index_on_disk_ranks_as_the_one_in_memory(folders: dict[str, Path]):
    memory, disk = TextIndex(PAGES), open_index(folders["fts5"])
    for query in CLEAR:
        found, expected = disk.search(query, 5), memory.search(query, 5)
        assert [(hit.page.title, hit.score) for hit in found] == [(hit.page.title, hit.score) for hit in expected]


@pytest.mark.parametrize("query", CLEAR)
def test_the_engines_agree_on_the_first_hit_of_a_clear_query(folders: dict[str, Path], query: str):
    first = [titles(open_index(folders[engine]), query)[0] for engine in ENGINES]
    assert first[0] == first[1]


def test_the_engines_agree_among_thousands_of_passages(tmp_path: Path):
    source = write_towns(tmp_path / "a.jsonl", 3000)
    for engine in ENGINES:
        build_index(tmp_path / engine, [source], engine, show_progress=False)
    first, second = (open_index(tmp_path / engine) for engine in ENGINES)
    for town in range(0, 3000, 250):
        for query in (f"who is the mayor of town t{town}x", f"where is Mr. m{town}x mayor"):
            assert titles(first, query, 1) == titles(second, query, 1) == [f"Town t{town}x"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_query_without_known_words_finds_nothing(folders: dict[str, Path], engine: str):
    index = open_index(folders[engine])
    assert [index.search(query, 5) for query in ("zzzz qqqq", "", "  ", '"', "((", "title:*")] == [[]] * 6


@pytest.mark.parametrize("engine", ENGINES)
def test_any_text_is_a_valid_query(folders: dict[str, Path], engine: str):
    index = open_index(folders[engine])

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=80))
    def search(query: str) -> None:
        assert len(index.search(query, 2)) <= 2

    search()


def test_vectors_find_what_shares_no_word_and_both_is_the_fusion(folders: dict[str, Path]):
    ways = {way: open_index(folders["dense"], way) for way in ("bm25", "dense", "both")}
    vector = asyncio.run(ways["dense"].embed("masons tower"))
    found = {way: ways[way].search("masons tower", 60, vector if way != "bm25" else None) for way in ways}
    assert found["dense"][0].page.title == "Thé Tower" and len(found["dense"]) == len(PAGES)
    assert -1.01 <= found["dense"][-1].score <= found["dense"][0].score <= 1.01
    ranks = [[int(hit.page.id) for hit in found[way]] for way in ("bm25", "dense")]
    expected = reciprocal_rank_fusion(ranks)
    assert [int(hit.page.id) for hit in found["both"]] == [number for number, _ in expected]
    assert [hit.score for hit in found["both"]] == [round(score, 4) for _, score in expected]


def test_an_index_with_vectors_is_searched_by_both_unless_told_otherwise(folders: dict[str, Path]):
    assert open_index(folders["dense"]).by == "both" and open_index(folders["fts5"]).by == "bm25"


def test_prefixes_are_put_before_passages_and_queries(folders: dict[str, Path], tmp_path: Path):
    spec = EmbedderSpec(str(folders["model"]), query_prefix="currency ", passage_prefix="anthem ")
    page = {"title": "", "text": "tall"}
    (tmp_path / "a.jsonl").write_text(json.dumps(page))
    build_index(tmp_path / "out", [tmp_path / "a.jsonl"], embedder=spec, show_progress=False)
    index = open_index(tmp_path / "out", "dense")
    plain = open_index(folders["dense"], "dense")
    np.testing.assert_allclose(asyncio.run(index.embed("hills")), asyncio.run(plain.embed("currency hills")), rtol=1e-5)
    vector = asyncio.run(plain.embed("anthem tall"))
    assert index.search("", 1, vector)[0].score == pytest.approx(1.0, abs=2e-3)


def test_a_search_that_takes_too_long_says_so(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fts5_engine, "_STEPS_BETWEEN_LOOKS", 1)
    index = open_index(folders["fts5"], timeout_s=-1.0)
    with pytest.raises(SearchFailure, match="--engine tantivy") as caught:
        index.search("velmora capital", 3)
    assert caught.value.code == "upstream_timeout"


def test_a_folder_that_is_no_index_says_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match="name a folder that `mmsearch index build` made"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, this program reads up to 1"),
        ({"kind": "pictures"}, "is an index of pictures, not of passages"),
        ({"surprise": 1}, r"index\.json is damaged"),
    ],
)
def test_a_newer_other_or_odd_manifest_is_named(folders: dict[str, Path], tmp_path: Path, change: dict, message: str):
    folder = shutil.copytree(folders["fts5"], tmp_path / "copy")
    manifest = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DataError, match=message):
        open_index(folder)


def test_a_cut_manifest_is_named(folders: dict[str, Path], tmp_path: Path):
    folder = shutil.copytree(folders["fts5"], tmp_path / "copy")
    (folder / FILE).write_text((folder / FILE).read_text()[:50])
    with pytest.raises(DataError, match=r"index\.json is damaged"):
        open_index(folder)


@pytest.mark.parametrize("name", ["fts5", "tantivy", "dense"])
def test_a_file_that_is_missing_or_cut_is_named(folders: dict[str, Path], tmp_path: Path, name: str):
    for file in json.loads((folders[name] / FILE).read_text())["files"]:
        folder = shutil.copytree(folders[name], tmp_path / "copy")
        size = (folder / file).stat().st_size
        if size:
            with (folder / file).open("r+b") as opened:
                opened.truncate(size - 1)
            with pytest.raises(DataError, match=f"{file} has {size - 1:,} bytes instead of {size:,}"):
                open_index(folder)
        (folder / file).unlink()
        with pytest.raises(DataError, match=f"{file} is missing"):
            open_index(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("name", "file"), [("fts5", "passages.sqlite"), ("fts5", "fts5.sqlite"), ("tantivy", "tantivy/meta.json")]
)
def test_a_file_overwritten_in_its_length_fails_in_one_line(
    folders: dict[str, Path], tmp_path: Path, name: str, file: str
):
    folder = shutil.copytree(folders[name], tmp_path / "copy")
    (folder / file).write_bytes(b"\xa5" * (folder / file).stat().st_size)
    with pytest.raises((DataError, SearchFailure), match="build it again"):
        open_index(folder).search("velmora capital", 3)


def test_a_way_that_the_index_does_not_have_says_what_to_do(folders: dict[str, Path]):
    with pytest.raises(ConfigError, match="build it with --dense MODEL"):
        open_index(folders["fts5"], "dense")
    with pytest.raises(ConfigError, match="searched by bm25, dense, both, not by 'magic'"):
        open_index(folders["fts5"], "magic")


def test_vectors_of_another_model_are_not_searched(folders: dict[str, Path], tmp_path: Path):
    write_model(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="is not the one that made the vectors"):
        open_index(folders["dense"], embedder=str(tmp_path / "other"))
    moved = shutil.copytree(folders["model"], tmp_path / "moved")
    assert titles(open_index(folders["dense"], embedder=str(moved)), "masons")[0] == "Thé Tower"


def test_threads_search_at_one_time(folders: dict[str, Path]):
    async def go(index: PassageIndex) -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(index.search, query, 1) for query in CLEAR * 5))

    for engine in ENGINES:
        index = open_index(folders[engine])
        found = asyncio.run(go(index))
        assert [hits[0].page.title for hits in found] == [index.search(query, 1)[0].page.title for query in CLEAR * 5]


def test_closing_frees_the_files(folders: dict[str, Path]):
    index = open_index(folders["fts5"])
    index.search("velmora", 1)
    asyncio.run(index.close())
    with pytest.raises(SearchFailure, match="closed database"):
        index.search("velmora", 1)
    assert sqlite3.connect(folders["fts5"] / "passages.sqlite").execute("SELECT count(*) FROM passages").fetchone() == (
        5,
    )
