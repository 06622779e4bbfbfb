"""`mmsearch index` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch_jax.commands import main as cli
from tests.tools_server.corpora.small_index import write_model, write_passages
from tests.tools_server.small_corpus import write_corpus


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
