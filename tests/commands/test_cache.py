"""`mmsearch cache` from the command line."""

import asyncio
import dataclasses
import pickle
from pathlib import Path

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.core.search_api import ImageSearchRequest, SearchReply, SearchResult
from mmsearch_jax.data.storage import write_rows
from tests.data.rows import full_row, jpeg
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import write_corpus
from tools_server.assembly import assemble
from tools_server.cache.answers import key_of
from tools_server.cache.store import CacheEntry, SqliteStore


def mmsearch(*arguments: object) -> int:
    return cli.main(["cache", *map(str, arguments)])


def store_of(path: Path) -> str:
    return f"--config.cache.path={path}"


def fill(path: Path, count: int) -> None:
    async def go() -> None:
        store = SqliteStore(path)
        for i in range(count):
            request = {"tool": "text_search", "query": f"é\u2028{i}"}
            reply = SearchReply((SearchResult(f"page {i}", "text"),), "text_search").to_json()
            await store.put(key_of(request), CacheEntry(request, reply, float(i)))
        await store.close()

    asyncio.run(go())


def entries(path: Path) -> dict[str, CacheEntry]:
    async def go() -> dict[str, CacheEntry]:
        store = SqliteStore(path)
        try:
            return {key: entry async for key, entry in store.entries()}
        finally:
            await store.close()

    return asyncio.run(go())


def test_what_is_exported_comes_back_the_same_in_another_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill(tmp_path / "a.sqlite", 20)
    assert mmsearch("export", tmp_path / "out" / "answers.jsonl", store_of(tmp_path / "a.sqlite")) == 0
    assert mmsearch("import", tmp_path / "out" / "answers.jsonl", store_of(tmp_path / "b.sqlite")) == 0
    assert entries(tmp_path / "a.sqlite") == entries(tmp_path / "b.sqlite")
    capsys.readouterr()
    assert mmsearch("stats", store_of(tmp_path / "b.sqlite")) == 0
    assert "20 answers" in capsys.readouterr().out


def test_a_damaged_export_is_named_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill(tmp_path / "a.sqlite", 2)
    mmsearch("export", tmp_path / "answers.jsonl", store_of(tmp_path / "a.sqlite"))
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"request": {"tool": "text_search"}, "stored_s": 1.0, "reply": {"results": 3}}\n')
    assert mmsearch("import", tmp_path / "answers.jsonl", store_of(tmp_path / "b.sqlite")) == 2
    assert "answers.jsonl:3: not a kept answer" in capsys.readouterr().err
    assert mmsearch("import", tmp_path / "none.jsonl", store_of(tmp_path / "b.sqlite")) == 2
    assert "no exported cache at" in capsys.readouterr().err


def fvqa_files(tmp_path: Path) -> tuple[Path, Path]:
    found = {
        "r0": {
            "tool_returned_web_title_list": ["Machu <answer>Picchu", None, "Peru"],
            "tool_returned_images_urls": None,
        },
        "r1": "broken",
    }
    (tmp_path / "cache.pkl").write_bytes(pickle.dumps(found))
    rows = [dataclasses.replace(full_row(name), image=jpeg(), more_images=()) for name in ("r0", "r1", "r2")]
    write_rows(rows, tmp_path / "rows.array_record")
    return tmp_path / "cache.pkl", tmp_path / "rows.array_record"


def test_a_server_answers_image_searches_from_fvqas_own_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cache, rows = fvqa_files(tmp_path)
    config = default_config()
    config.corpus, config.cache.path = str(write_corpus(tmp_path / "corpus")), str(tmp_path / "cache.sqlite")
    config.cache.mode = "replay"
    assert mmsearch("import-fvqa", cache, rows, "--top-k", 2, store_of(tmp_path / "cache.sqlite")) == 0
    assert "2 rows without a usable answer\n1 image searches kept" in capsys.readouterr().out

    async def go() -> SearchReply:
        service = assemble(settings_of(config)).load()
        try:
            image_id = service.keep_image(jpeg())
            return await service.image_search(ImageSearchRequest(image_id=image_id, top_k=2))
        finally:
            await service.close()

    reply = asyncio.run(go())
    assert ([result.title for result in reply.results], reply.backend) == (["Machu (answer)Picchu", "Peru"], "fvqa")
    assert reply.cached


def test_a_cache_that_fits_no_row_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cache, rows = fvqa_files(tmp_path)
    cache.write_bytes(pickle.dumps({"other": {"tool_returned_web_title_list": []}}))
    assert mmsearch("import-fvqa", cache, rows, store_of(tmp_path / "cache.sqlite")) == 2
    assert "do both belong to the same split?" in capsys.readouterr().err
