"""Building an index from files: every format and engine; results of a kill, a damaged file or a wrong argument."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from mmsearch_jax.core.errors import ConfigError, DataError
from tests.tools_server.corpora.small_index import DIM, write_model, write_passages, write_towns
from tests.tools_server.small_corpus import PAGES
from tools_server.corpora import passage_build as build_module
from tools_server.corpora import tantivy_engine
from tools_server.corpora.embedders import EmbedderSpec
from tools_server.corpora.engines import ENGINES
from tools_server.corpora.manifest import write_manifest
from tools_server.corpora.open import open_index
from tools_server.corpora.passage_build import build_index
from tools_server.corpora.staging import staged
from tools_server.corpora.vectors import FLAT_FILE
from tools_server.hits import Hit


def build(out: Path, *sources: Path, **options: Any):
    return build_index(out, list(sources), show_progress=False, **options)


def search(folder: Path, query: str, top_k: int = 3, **options: Any) -> list[Hit]:
    async def go() -> list[Hit]:
        index = open_index(folder, **options)
        try:
            return index.search(query, top_k, await index.embed(query))
        finally:
            await index.close()

    return asyncio.run(go())


@pytest.mark.parametrize("engine", ENGINES)
def test_passages_come_back_whole_with_their_title_address_and_id(tmp_path: Path, engine: str):
    manifest = build(tmp_path / "out", write_passages(tmp_path / "a.jsonl"), engine=engine)
    assert manifest.count == len(PAGES) and manifest.recipe["engine"] == engine
    first = search(tmp_path / "out", "What is the national anthem of New Velmora?")[0]
    assert (first.page.title, first.page.url, first.page.text) == (PAGES[1].title, PAGES[1].url, PAGES[1].text)
    assert first.page.id == "1"
    assert not (tmp_path / "out.part").exists()


def test_files_of_every_format_are_one_corpus(tmp_path: Path):
    contents = {"id": "w", "contents": '"Wiki"\nWombats dig.'}
    (tmp_path / "wiki.jsonl.gz").write_bytes(gzip.compress(json.dumps(contents).encode()))
    pyarrow.parquet.write_table(pyarrow.table({"title": ["Parq"], "text": ["Lizards bask."]}), tmp_path / "p.parquet")
    manifest = build(
        tmp_path / "out", write_passages(tmp_path / "a.jsonl"), tmp_path / "wiki.jsonl.gz", tmp_path / "p.parquet"
    )
    assert manifest.count == len(PAGES) + 2
    found = [search(tmp_path / "out", query)[0].page.title for query in ("who digs", "what basks", "who built it")]
    assert found == ["Wiki", "Parq", "Thé Tower"]


def test_long_pages_are_split_into_passages(tmp_path: Path):
    page = {"title": "Long", "text": " ".join(f"Sentence number n{i}x is here." for i in range(40)), "id": "7"}
    (tmp_path / "a.jsonl").write_text(json.dumps(page))
    assert build(tmp_path / "out", tmp_path / "a.jsonl", max_words=30).count == 7
    first = search(tmp_path / "out", "sentence n39x")[0]
    assert first.page.id == "7#7" and "n39x" in first.page.text and "n0x" not in first.page.text


def test_a_build_killed_at_any_time_leaves_nothing_that_opens_and_the_same_command_ends_it(tmp_path: Path):
    source = write_towns(tmp_path / "a.jsonl", 30_000)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mmsearch_jax.commands.main", "index", "build", str(out), str(source)]
    for kilobytes in (16, 500, 2000):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            started = time.monotonic()
            while process.poll() is None and time.monotonic() - started < 60:
                if sum(path.stat().st_size for path in tmp_path.glob("out.part/*.sqlite")) > kilobytes * 1000:
                    break
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        for folder in (out, tmp_path / "out.part"):
            with pytest.raises(DataError, match="no index at"):
                open_index(folder)
    subprocess.run(command, check=True, capture_output=True)
    assert search(out, "mayor of town t29999x")[0].page.title == "Town t29999x"
    assert len(open_index(out)) == 30_000


def test_vectors_that_were_made_before_a_kill_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_model(tmp_path / "model")
    source = write_towns(tmp_path / "a.jsonl", 300)
    spec = EmbedderSpec(str(tmp_path / "model"))
    embedded: list[str] = []
    open_embedder = build_module.open_embedder

    def watched(*arguments: Any, fail_after: int) -> Any:
        embedder = open_embedder(*arguments)
        embed = embedder.embed

        async def counted(texts: Any) -> Any:
            if len(embedded) >= fail_after:
                raise KeyboardInterrupt
            embedded.extend(texts)
            return await embed(texts)

        embedder.embed = counted
        return embedder

    monkeypatch.setattr(build_module, "open_embedder", lambda *a: watched(*a, fail_after=129))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", source, embedder=spec)
    assert (tmp_path / "out.part" / FLAT_FILE).stat().st_size == 128 * 2 * DIM
    embedded.clear()
    monkeypatch.setattr(build_module, "open_embedder", lambda *a: watched(*a, fail_after=10_000))
    manifest = build(tmp_path / "out", source, embedder=spec)
    assert manifest.vectors is not None and manifest.vectors["count"] == 300
    assert len(embedded) == 1 + 300 - 128  # plus the probe for the dimensions
    assert embedded[1].startswith("Town t128x\n")


def test_a_build_killed_at_its_very_end_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_passages(tmp_path / "a.jsonl")

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_manifest", lambda *a: (write_manifest(*a), broken()))
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "out", source)
    assert (tmp_path / "out.part" / "index.json").is_file()
    manifest = build(tmp_path / "out", source)
    assert set(manifest.files) == {"passages.sqlite", "fts5.sqlite"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.json", *manifest.files}
    assert search(tmp_path / "out", "masons")[0].page.title == "Thé Tower"


def test_a_changed_file_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_passages(tmp_path / "a.jsonl")

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_manifest", broken)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "out", source)
    assert json.loads((tmp_path / "out.part" / "steps.json").read_text()) == {
        "passages and addresses": {"count": len(PAGES), "dropped": 0}
    }
    write_passages(source, PAGES[:2])
    assert build(tmp_path / "out", source).count == 2


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    source = write_passages(tmp_path / "a.jsonl")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists: remove it or name another"):
        build(tmp_path / "out", source)


def test_two_builds_of_one_folder_do_not_mix(tmp_path: Path):
    source = write_passages(tmp_path / "a.jsonl")
    with staged(tmp_path / "out", {"some": "recipe"}) as stage:
        (stage.folder / "kept").write_text("x")
        with pytest.raises(DataError, match="another process builds"):
            build(tmp_path / "out", source)
        assert (stage.folder / "kept").exists()
    assert (tmp_path / "out" / "kept").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "lucene"}, ConfigError, "the engine is 'lucene', must be one of fts5, tantivy"),
        ({"max_words": 0}, ConfigError, "max_words is 0, must be above 0"),
        ({"exact_up_to": -1}, ConfigError, "exact_up_to is -1"),
        ({"embedder": EmbedderSpec("/nowhere")}, ConfigError, "no sentence model at /nowhere"),
        ({"embedder": EmbedderSpec("http://127.0.0.1:9/v1")}, ConfigError, "needs the name of its model"),
        (
            {"embedder": EmbedderSpec("http://127.0.0.1:9/v1", "m", "NO_SUCH_KEY")},
            ConfigError,
            "NO_SUCH_KEY, which is not set",
        ),
    ],
)
def test_a_wrong_argument_is_named(tmp_path: Path, options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        build(tmp_path / "out", write_passages(tmp_path / "a.jsonl"), **options)
    assert not (tmp_path / "out").exists()


def test_a_corpus_without_a_passage_or_a_file_is_named(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no passage with text"):
        build(tmp_path / "out", tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="no corpus file at"):
        build(tmp_path / "out", tmp_path / "b.jsonl")


def test_an_engine_that_is_not_installed_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(ConfigError, match=r"pip install 'mmsearch-jax\[tantivy\]'"):
        tantivy_engine.version()
    with pytest.raises(ConfigError, match="not installed"):
        build(tmp_path / "out", write_passages(tmp_path / "a.jsonl"), engine="tantivy")
