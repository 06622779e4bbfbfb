"""Search in a user's own corpus, by size.

    python -m benchmarks.corpora [--quick] [--sizes N ...] [--engines NAME ...] [--json FILE]

Passages are generated: about 100 words each (as in wiki-18), drawn from a Zipfian vocabulary of 200,000; every fiftieth states
a fact of an entity that occurs nowhere else. A query asks for such a fact with two of its words and three of the
vocabulary, without the hundred most frequent ones (the stop words, which queries do not search for). Random unit vectors of 384
dimensions stand for embeddings: times and sizes equal those of real ones, but a graph finds fewer of the nearest vectors than
among real ones, which have neighbours.

Each build and each series of queries runs in its own process; its memory is its peak, including the pages that it mapped. CPU
seconds are printed beside wall-clock seconds, which on a shared machine depend on other processes; estimates use CPU seconds.
`--quick` measures at 10k and 30k in a minute of CPU time.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Measured, command_line, report
from tools_server.corpora import vectors
from tools_server.corpora.open import open_index
from tools_server.corpora.passage_build import build_index
from tools_server.corpora.staging import staged
from tools_server.corpora.vectors import FlatVectors, VectorInfo, Vectors

_VOCABULARY, _EXPONENT, _DIM = 200_000, 1.05, 384
_FACT_EVERY, _QUERIES, _UNTIMED, _STOP_WORDS = 50, 200, 10, 100
_WIKI_18 = 21_015_324
"""Passages of Search-R1's dump."""
_LARGEST_GRAPH = 100_000
"""A larger graph is built only if no other engine is selected."""
_AIMS = {"fts5": 1500.0, "tantivy": 100.0, "exact": 1500.0, "graph": 50.0}
"""Aim for the 99th percentile of query latency, in milliseconds."""
_GRAPH = (
    "Each vector is added by a search in the existing graph, so the slope of the build is 1 plus the slope of a query."
)


def entity(number: int) -> str:
    """A name that occurs in no other passage."""
    return f"qx{number:x}ville"


def _words() -> np.ndarray:
    """Made-up words of 3 to 10 letters, the most frequent first."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    return np.array(["".join(rng.choice(letters, length)) for length in rng.integers(3, 11, _VOCABULARY)])


class Text:
    """Draws words."""

    def __init__(self, seed: int):
        self._rng, self._words = np.random.default_rng(seed), _words()
        weights = 1.0 / np.arange(1, _VOCABULARY + 1) ** _EXPONENT
        self._edges = np.cumsum(weights / weights.sum())

    def draw(self, count: int, first: int = 0) -> list[str]:
        """Words by their frequency, from the `first` most frequent on."""
        least = self._edges[first - 1] if first else 0.0
        ranks = np.searchsorted(self._edges, self._rng.uniform(least, 1.0, count)).clip(max=_VOCABULARY - 1)
        return self._words[ranks].tolist()

    def passages(self, count: int) -> Iterator[dict[str, str]]:
        """Title and text of each."""
        for number in range(count):
            words = self.draw(103)
            text = " ".join(words[3:])
            if number % _FACT_EVERY == 0:
                text += f". The mayor of {entity(number)} is {words[7].title()} {words[8].title()}."
            yield {"id": str(number), "title": " ".join(words[:3]).title(), "text": text}


def write_passages(file: Path, count: int) -> None:
    """A file of JSON lines."""
    with file.open("w", encoding="utf-8") as out:
        for record in Text(1).passages(count):
            out.write(json.dumps(record) + "\n")


def build(file: Path, out: Path, engine: str) -> dict[str, float]:
    """Seconds, bytes and peak memory of a build."""
    clock = _Clock()
    manifest = build_index(out, [file], engine, show_progress=False)
    return {**clock.spent(), "index MB": sum(manifest.files.values()) / 1e6, **_memory("build")}


def query(index_folder: Path, count: int) -> dict[str, float]:
    """Latencies, memory, and how often the passage with the fact is among the first five."""
    index, text = open_index(index_folder), Text(2)
    rng = np.random.default_rng(3)
    facts = rng.integers(0, count // _FACT_EVERY, _QUERIES) * _FACT_EVERY

    def ask(fact: int) -> bool:
        hits = index.search(f"who is the mayor of {entity(fact)}, {' '.join(text.draw(3, _STOP_WORDS))}?", 5)
        return any(hit.page.id == str(fact) for hit in hits)

    spent, found = _timed(ask, facts.tolist())
    asyncio.run(index.close())
    return {**spent, "recall@5": float(np.mean(found)), **_memory("query")}


def build_vectors(out: Path, count: int, exact: bool) -> dict[str, float]:
    """Seconds, bytes and memory of an index of random vectors; writing them is not counted."""
    info = VectorInfo(count, _DIM, exact)
    with staged(out, {}) as stage:
        flat = FlatVectors(stage.folder, _DIM)
        for part in _random_vectors(count):
            flat.add(part)
        flat.close()
        clock = _Clock()
        vectors.finish(stage, info, show_progress=False)
        spent = clock.spent()
        size = sum(stage.file_sizes().values()) / 1e6
    return {**spent, "index MB": size, **_memory("build")}


def query_vectors(folder: Path, count: int, exact: bool) -> dict[str, float]:
    """Latencies, memory, and how many of the true ten nearest are among the ten that were found."""
    opened = Vectors(folder, VectorInfo(count, _DIM, exact))
    asked = next(_random_vectors(_QUERIES, seed=9))
    spent, found = _timed(lambda one: opened.search(one[None], 10)[0][0].tolist(), list(asked))
    memory = _memory("query")
    nearest = np.zeros((_QUERIES, 0), np.int64)
    scores = np.zeros((_QUERIES, 0), np.float32)
    first = 0
    for part in _random_vectors(count):
        scores = np.concatenate([scores, asked @ part.T], axis=1)
        nearest = np.concatenate([nearest, np.tile(np.arange(first, first + len(part)), (_QUERIES, 1))], axis=1)
        kept = np.argsort(-scores, axis=1)[:, :10]
        scores, nearest = np.take_along_axis(scores, kept, 1), np.take_along_axis(nearest, kept, 1)
        first += len(part)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest.tolist(), strict=True)])
    return {**spent, "recall@10": float(recall), **memory}


def _random_vectors(count: int, seed: int = 5) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for first in range(0, count, 10_000):
        part = rng.standard_normal((min(10_000, count - first), _DIM), np.float32)
        yield part / np.linalg.norm(part, axis=1, keepdims=True)


class _Clock:
    def __init__(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> dict[str, float]:
        return {"build s": time.perf_counter() - self._wall, "build-cpu s": time.process_time() - self._cpu}


def _timed(ask: Callable[[Any], Any], queries: list[Any]) -> tuple[dict[str, float], list[Any]]:
    """Latencies, except the first ten queries, which read files for the first time."""
    spent, found, cpu = [], [], 0.0
    for number, one in enumerate(queries):
        if number == _UNTIMED:
            cpu = time.process_time()
        started = time.perf_counter()
        found.append(ask(one))
        spent.append(1e3 * (time.perf_counter() - started))
    cpu_ms = 1e3 * (time.process_time() - cpu) / (len(queries) - _UNTIMED)
    p50, p99 = np.percentile(spent[_UNTIMED:], [50, 99])
    return {"p50 ms": float(p50), "p99 ms": float(p99), "cpu ms": cpu_ms}, found


def _memory(what: str) -> dict[str, float]:
    return {f"{what} MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _apart(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """The result of `work` in its own process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(sizes: list[int], engines: list[str], folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """The figures of every engine at every size; prints each when it is measured."""
    figures: dict[tuple[str, int], dict[str, float]] = {}

    def note(name: str, size: int, *parts: dict[str, float]) -> None:
        figures[name, size] = {key: value for part in parts for key, value in part.items()}
        print(f"{name} {size:,}: " + ", ".join(f"{k} {v:,.2f}" for k, v in figures[name, size].items()), flush=True)

    for size in sizes:
        file = folder / f"{size}.jsonl"
        write_passages(file, size)
        for engine in [name for name in engines if name in ("fts5", "tantivy")]:
            out = folder / f"{engine}-{size}"
            note(engine, size, _apart(build, file, out, engine), _apart(query, out, size))
        file.unlink()
    for name, exact in (("exact", True), ("graph", False)):
        for size in sizes if name in engines else ():
            if name == "graph" and len(engines) > 1 and size > _LARGEST_GRAPH:
                print(f"graph {size:,}: left out, because it takes longer than all others together: --engines graph")
                continue
            out = folder / f"{name}-{size}"
            note(name, size, _apart(build_vectors, out, size, exact), _apart(query_vectors, out, size, exact))
    return figures


def rows(figures: dict[tuple[str, int], dict[str, float]]) -> dict[str, Measured]:
    """The figures that decide between engines: latency, memory of a build, and recall. All others are only printed."""
    made = {}
    for (name, size), values in figures.items():
        of = f"{name}, {size:,} passages"
        p99, recall = values["p99 ms"], next(key for key in values if key.startswith("recall"))
        made[f"{of}: p99"] = Measured(p99, "ms", f"below {_AIMS[name]:.0f}", p99 < _AIMS[name])
        # A graph finds fewer of the nearest among random vectors than among real ones.
        aim = "" if name == "graph" else "above 0.99"
        made[f"{of}: {recall}"] = Measured(values[recall], "", aim, not aim or values[recall] > 0.99)
        if name in ("fts5", "tantivy"):
            memory = values["build MiB"]
            made[f"{of}: memory of the build"] = Measured(memory, "MiB", "below 1500", memory < 1500)
    return made


def sizes_of(engine: str, figures: dict[tuple[str, int], dict[str, float]]) -> list[int]:
    """The sizes at which an engine was measured, in ascending order."""
    return sorted(size for name, size in figures if name == engine)


def slopes(figures: dict[tuple[str, int], dict[str, float]], engines: list[str]) -> dict[str, Measured]:
    """Slopes of CPU seconds over passages on a log-log scale, from the smallest size to the largest: 1 is linear."""
    made = {}
    for name in engines:
        built = sizes_of(name, figures)
        if len(built) < 2:
            continue
        first, last = built[0], built[-1]
        for key, what in (("build-cpu s", "build"), ("cpu ms", "query")):
            low, high = figures[name, first][key], figures[name, last][key]
            # An engine without a build has no slope of it.
            if low > 0 < high:
                slope = float(np.log(high / low) / np.log(last / first))
                made[f"slope: {name} {what}, {first:,} to {last:,}"] = Measured(
                    slope, "", "at most 1.1", slope <= 1.1, why=_GRAPH if name == "graph" else ""
                )
    return made


def on_paper(figures: dict[tuple[str, int], dict[str, float]], engines: list[str]) -> None:
    """Prints the extrapolation to the size of wiki-18, by the slope between the two largest sizes."""
    print(f"\nextrapolated by the slope between the two largest sizes, {_WIKI_18:,} passages:")
    for name in engines:
        if len(built := sizes_of(name, figures)) < 2:
            continue
        small, large = built[-2:]
        low, high = figures[name, small], figures[name, large]
        told = {
            key: high[key] + (high[key] - low[key]) / (large - small) * (_WIKI_18 - large)
            for key in ("build-cpu s", "index MB", "cpu ms")
        }
        print(f"  {name:<8}" + ", ".join(f"{key} {value:,.0f}" for key, value in told.items()))


def main() -> None:
    """Prints every figure, the table, and the slope."""
    parser = command_line("Build time, size, memory and latency of search in one's own corpus.", "10k and 30k passages")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument(
        "--engines", nargs="+", choices=[*_AIMS], default=[*_AIMS], metavar="NAME", help=", ".join(_AIMS)
    )
    options = parser.parse_args()
    sizes = [10_000, 30_000] if options.quick else options.sizes
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(sizes, options.engines, Path(folder))
    report(rows(figures) | slopes(figures, options.engines), options.json)
    on_paper(figures, options.engines)


if __name__ == "__main__":
    main()
