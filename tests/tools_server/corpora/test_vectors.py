"""Nearest vectors on disk against brute force in numpy; the files are memory-mapped."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tools_server.corpora.staging import staged
from tools_server.corpora.vectors import FLAT_FILE, GRAPH_FILE, FlatVectors, VectorInfo, Vectors, finish


def neighbourly(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in a hundred clusters, like embeddings."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((100, dim))
    made = centres[rng.integers(0, 100, count)] + 0.7 * rng.standard_normal((count, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, made: np.ndarray, exact: bool) -> Vectors:
    info = VectorInfo(len(made), made.shape[1], exact)
    with staged(folder, {}) as stage:
        flat = FlatVectors(stage.folder, info.dim)
        flat.add(made)
        flat.close()
        finish(stage, info, show_progress=False)
    return Vectors(folder, info)


def brute_force(made: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-(queries @ made.T), axis=1, kind="stable")[:, :count]


def test_compared_one_by_one_they_are_the_nearest_with_their_cosines(tmp_path: Path):
    made, queries = neighbourly(2000, 24), neighbourly(20, 24, seed=1)
    numbers, cosines = write(tmp_path / "v", made, exact=True).search(queries, 5)
    expected = brute_force(made.astype(np.float16).astype(np.float32), queries, 5)
    # float16 may swap vectors whose cosines are equal to three digits.
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ made.T, expected, 1), atol=2e-3)
    assert (numbers[:, 0] == expected[:, 0]).mean() >= 0.95
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(numbers.tolist(), expected.tolist(), strict=True)]) >= 0.97


def test_the_graph_finds_nearly_all_of_them_and_holds_the_vectors_alone(tmp_path: Path):
    made, queries = neighbourly(3000, 24), neighbourly(50, 24, seed=1)
    numbers, cosines = write(tmp_path / "v", made, exact=False).search(queries, 10)
    expected = brute_force(made, queries, 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(numbers.tolist(), expected.tolist(), strict=True)]) >= 0.9
    np.testing.assert_allclose(cosines, np.einsum("qd,qkd->qk", queries, made[numbers]), atol=0.02)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    assert [path.name for path in (tmp_path / "v").iterdir()] == [GRAPH_FILE]


@pytest.mark.parametrize("exact", [True, False])
def test_one_query_and_more_asked_for_than_there_are_give_all(tmp_path: Path, exact: bool):
    numbers, _ = write(tmp_path / "v", neighbourly(7, 8), exact).search(neighbourly(1, 8, seed=1), 50)
    assert sorted(numbers[0].tolist()) == list(range(7))


@pytest.mark.parametrize("exact", [True, False])
def test_threads_that_search_together_get_what_each_gets_alone(tmp_path: Path, exact: bool):
    vectors, queries = write(tmp_path / "v", neighbourly(3000, 24), exact), neighbourly(40, 24, seed=1)
    alone = [vectors.search(query[None], 10)[0].tolist() for query in queries]
    together: dict[int, list[list[list[int]]]] = {}

    def search(thread: int) -> None:
        together[thread] = [vectors.search(query[None], 10)[0].tolist() for query in queries]

    threads = [threading.Thread(target=search, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found == alone for found in together.values()) and len(together) == 4


def test_a_file_that_ends_within_a_vector_goes_on_after_the_last_whole_one(tmp_path: Path):
    made = neighbourly(5, 8)
    flat = FlatVectors(tmp_path, 8)
    flat.add(made[:3])
    flat.close()
    with (tmp_path / FLAT_FILE).open("ab") as file:
        file.write(b"1234567")
    flat = FlatVectors(tmp_path, 8)
    assert flat.count == 3
    flat.add(made[3:])
    flat.close()
    written = np.fromfile(tmp_path / FLAT_FILE, np.float16).reshape(-1, 8)
    np.testing.assert_array_equal(written, made.astype(np.float16))


@pytest.mark.parametrize("exact", [True, False])
def test_opening_reads_none_of_the_vectors(tmp_path: Path, exact: bool):
    count, dim = (100_000, 256) if exact else (2_000, 2048)
    folder = tmp_path / "v"
    if exact:
        folder.mkdir()
        np.memmap(folder / FLAT_FILE, np.float16, "w+", shape=(count, dim))[:] = 0.5
    else:
        write(folder, neighbourly(count, dim), exact)
    size = sum(path.stat().st_size for path in folder.iterdir())
    program = f"""
import pathlib
import resource
from tools_server.corpora.vectors import VectorInfo, Vectors, version
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
version()
before = resident()
opened = Vectors(pathlib.Path({str(folder)!r}), VectorInfo({count}, {dim}, {exact}))
print(resident() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert size > 8e6
    assert grown < size / 4
