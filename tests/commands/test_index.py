"""`mmsearch index` from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmsearch_jax.commands import main as cli
from tests.tools_server.corpora.small_index import write_model, write_passages
from tests.tools_server.small_corpus import write_corpus
from tools_server.backends.local import Corpus


def mmsearch(*arguments: object) -> int:
    return cli.main(["index", *map(str, arguments)])


@pytest.mark.parametrize("engine", ["fts5", "tantivy"])
def test_an_index_is_built_told_of_and_searched(tmp_path: Path, capsys, engine: str):
    assert mmsearch("build", tmp_path / "out", write_passages(tmp_path / "a.jsonl"), "--engine", engine) == 0
    assert "5 passages" in capsys.readouterr().out
    assert mmsearch("info", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "5 passages, built 20" in told and engine in told and "a.jsonl" in told and "passages.sqlite" in told
    assert mmsearch("search", tmp_path / "out", "capital of new velmora", "--top-k", 1) == 0
    found = capsys.readouterr().out
    assert "New Velmora" in found and "Capital: Harn" in found and "Thé Tower" not in found
    assert mmsearch("search", tmp_path / "out", "zzzz") == 0
    assert "nothing found" in capsys.readouterr().out


def test_vectors_are_built_and_searched_by(tmp_path: Path, capsys):
    write_model(tmp_path / "model")
    source = write_passages(tmp_path / "a.jsonl")
    assert mmsearch("build", tmp_path / "out", source, "--dense", tmp_path / "model", "--exact-up-to", 2) == 0
    assert mmsearch("info", tmp_path / "out") == 0
    assert "5 of 16 dimensions, searched through a graph" in capsys.readouterr().out
    assert mmsearch("search", tmp_path / "out", "masons tower", "--by", "dense", "--top-k", 1) == 0
    assert "Thé Tower" in capsys.readouterr().out


def test_pictures_are_indexed(tmp_path: Path, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "images" / "1.png").write_bytes(b"no picture")
    assert mmsearch("build-images", tmp_path / "out", corpus) == 0
    printed = capsys.readouterr().out
    assert "2 pictures" in printed and "1 could not be read" in printed and "rejected.jsonl" in printed
    assert mmsearch("info", tmp_path / "out") == 0
    assert "2 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["build-images", "OUT", "SOURCE"], ["build", "OUT", "SOURCE", "--dense", "/m"]])
def test_a_missing_library_is_named_with_its_extra_before_anything_is_read_or_written(
    tmp_path: Path, capsys, monkeypatch, arguments: list[str]
):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    # Neither the pictures nor the model exist: the library is missed first.
    named = {"OUT": tmp_path / "new" / "out", "SOURCE": write_passages(tmp_path / "a.jsonl")}
    if arguments[0] == "build-images":
        named["SOURCE"] = tmp_path / "nowhere"
    assert mmsearch(*(named.get(argument, argument) for argument in arguments)) == 2
    assert "vectors need usearch: pip install 'mmsearch-jax[dense]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


ODD = ("file:///a.txt", "", "https://x.example/a", "javascript:alert(1)", "wiki/Velmora", "https://x.example/a b")


def test_addresses_that_results_will_not_show_are_counted_and_told_once(tmp_path: Path, capsys, caplog):
    pages = [{"title": f"t{i}", "text": "a town", "url": url} for i, url in enumerate(ODD)]
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "pages.jsonl").write_text("\n".join(map(json.dumps, pages)), encoding="utf-8")
    listed = [{"file": "images/0.png", "title": "flag", "url": url} for url in ODD[:3]]
    (corpus / "images.jsonl").write_text("\n".join(map(json.dumps, listed)), encoding="utf-8")
    assert mmsearch("build", tmp_path / "out", corpus) == 0
    assert "4 addresses will not be shown" in capsys.readouterr().out
    assert mmsearch("info", tmp_path / "out") == 0
    assert "addresses_dropped 4" in capsys.readouterr().out
    assert mmsearch("build-images", tmp_path / "pictures", corpus) == 0
    assert "1 addresses will not be shown" in capsys.readouterr().out

    for folder, pictures in ((corpus, None), (tmp_path / "out", tmp_path / "pictures")):
        caplog.clear()
        Corpus(folder, pictures)
        (record,) = caplog.records
        assert "results show no address for 5 of the pages and pictures" in record.getMessage()
    assert mmsearch("build", tmp_path / "sound", write_passages(tmp_path / "a.jsonl")) == 0
    assert "will not be shown" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "OUT", "none.jsonl"], "no corpus file at none.jsonl"),
        (["build", "OUT", "SOURCE", "--engine", "lucene"], "must be one of fts5, tantivy"),
        (["build", "OUT", "SOURCE", "--max-words", "0"], "max_words is 0"),
        (["build", "OUT", "SOURCE", "--dense", "/nowhere"], "no sentence model at /nowhere"),
        (["build", "OUT", "SOURCE", "--dense", "http://127.0.0.1:9/v1"], "--dense-model NAME"),
        (["build", "OUT", "SOURCE", "--dense-model", "small"], "name it with --dense"),
        (["build", "HERE", "SOURCE"], "exists: remove it or name another folder"),
        (["build-images", "OUT", "/nowhere"], "no pictures at /nowhere"),
        (["info", "HERE"], "name a folder that `mmsearch index build` made"),
        (["search", "HERE", "a"], "no index at"),
        (["search", "HERE", "a", "--top-k", "0"], "--top-k is 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, capsys, arguments: list[str], message: str):
    source = write_passages(tmp_path / "a.jsonl")
    named = {"OUT": tmp_path / "out", "HERE": tmp_path, "SOURCE": source}
    assert mmsearch(*(named.get(argument, argument) for argument in arguments)) == 2
    printed = capsys.readouterr().err.splitlines()
    assert message in printed[-1] and printed[-1].startswith("error: ")
