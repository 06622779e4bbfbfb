"""Builds an index folder from files of passages: passages, the engine's files, vectors. A build that was killed resumes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import tqdm

from mmsearch_jax.core.errors import ConfigError, DataError
from tools_server.corpora import passage_store, vectors
from tools_server.corpora.embedders import Embedder, EmbedderSpec
from tools_server.corpora.engines import ENGINES, engine_kind
from tools_server.corpora.manifest import PASSAGES, Manifest, write_manifest
from tools_server.corpora.open_embedder import open_embedder
from tools_server.corpora.passage_store import PassageStore, PassageWriter
from tools_server.corpora.passages import corpus_file, read_passages
from tools_server.corpora.splitting import MAX_WORDS, split_pages
from tools_server.corpora.staging import described, staged
from tools_server.failures import SearchFailure
from tools_server.hits import Page
from tools_server.inert import drops_address

_BATCH = 1000
_EMBED_DEADLINE_S = 120.0


def build_index(
    out: Path,
    sources: Sequence[Path],
    engine: str = ENGINES[0],
    embedder: EmbedderSpec | None = None,
    max_words: int = MAX_WORDS,
    exact_up_to: int = vectors.EXACT_UP_TO,
    show_progress: bool = True,
) -> Manifest:
    """Builds an index of passages at `out`.

    Args:
      sources: files of passages, see `passages.read_passages`.
      engine: one of `ENGINES`.
      embedder: makes a vector of each passage for search by vectors; None for none.
      max_words: longer pages are split.
      exact_up_to: more vectors than this are searched through a graph.

    Raises:
      DataError: `out` exists, or a source cannot be used, or holds nothing.
      ConfigError: a library is not installed, a value is out of range, the embedder cannot be used.
    """
    if engine not in ENGINES:
        raise ConfigError(f"the engine is '{engine}', must be one of {', '.join(ENGINES)}")
    if max_words < 1 or exact_up_to < 0:
        raise ConfigError(
            f"max_words is {max_words}, must be above 0; exact_up_to is {exact_up_to}, must not be negative"
        )
    kind = engine_kind(engine)
    versions = {"passages": passage_store.VERSION, engine: kind.version}
    opened, made_by = None, None
    if embedder is not None:
        # Before the long part, so that an error is reported at once.
        versions["vectors"], opened = vectors.version(), open_embedder(embedder, _EMBED_DEADLINE_S)
        made_by = {**dataclasses.asdict(embedder), "identity": opened.identity}
    recipe = {
        "sources": [described(corpus_file(path)) for path in sources],
        "engine": engine,
        "max_words": max_words,
        "exact_up_to": exact_up_to,
        "embedder": made_by,
        "versions": versions,
    }
    with staged(out, recipe) as stage:
        written = stage.once(
            "passages and addresses",
            [passage_store.FILE, kind.file],
            lambda: _write_passages(stage.folder, sources, max_words, engine, show_progress),
        )
        count = written["count"]
        info = None
        if embedder is not None and opened is not None:
            # The file is kept after an interruption: vectors are expensive, and the step resumes after the last one.
            dim = stage.once(
                "vectors", [], lambda: _embed(stage.folder, count, embedder.passage_prefix, opened, show_progress)
            )
            info = vectors.VectorInfo(count, dim, count <= exact_up_to, recipe["embedder"])
            vectors.finish(stage, info, show_progress)
        return write_manifest(stage, PASSAGES, count, info, written["dropped"])


def _write_passages(
    folder: Path, sources: Sequence[Path], max_words: int, engine: str, show_progress: bool
) -> dict[str, int]:
    passages, ranked = PassageWriter(folder), engine_kind(engine).write(folder)
    count = dropped = 0

    def read() -> Iterator[Page]:
        nonlocal dropped
        for page in read_passages(sources):
            dropped += drops_address(page.url)
            yield page

    pages = split_pages(read(), max_words)
    with tqdm.tqdm(desc="passages", unit="passage", disable=not show_progress) as bar:
        while batch := list(itertools.islice(pages, _BATCH)):
            passages.add(count, batch)
            ranked.add(count, batch)
            count += len(batch)
            bar.update(len(batch))
    if not count:
        raise DataError("the files have no passage with text: give other files")
    passages.close()
    ranked.close()
    return {"count": count, "dropped": dropped}


def _embed(folder: Path, count: int, prefix: str, embedder: Embedder, show_progress: bool) -> int:
    """Writes the vectors; returns their dimensions."""
    store = PassageStore(folder)
    try:
        with asyncio.Runner() as runner:
            return runner.run(_write_vectors(folder, store, count, prefix, embedder, show_progress))
    except SearchFailure as failure:
        raise DataError(f"{failure.message}. Correct it and run the same command again: it resumes here") from failure
    finally:
        store.close()


async def _write_vectors(
    folder: Path, store: PassageStore, count: int, prefix: str, embedder: Embedder, show_progress: bool
) -> int:
    try:
        dim = (await embedder.embed(["dimensions"])).shape[1]
        flat = vectors.FlatVectors(folder, dim)
        texts = (prefix + f"{page.title}\n{page.text}".lstrip() for page in store.read(flat.count))
        with tqdm.tqdm(
            total=count, initial=flat.count, desc="vectors", unit="passage", disable=not show_progress
        ) as bar:
            while group := list(itertools.islice(texts, embedder.batch * embedder.concurrency)):
                batches = [group[i : i + embedder.batch] for i in range(0, len(group), embedder.batch)]
                for made in await asyncio.gather(*map(embedder.embed, batches)):
                    flat.add(made)
                bar.update(len(group))
        flat.close()
        return dim
    finally:
        await embedder.close()
