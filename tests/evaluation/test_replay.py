"""Exact repetition: the search server replays the replies that it recorded in an earlier run."""

import contextlib
import subprocess
import sys
import time

from mmsearch_jax.evaluation.samples import read_samples
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.evaluation.small_sets import SCRIPTS, write_sets
from tests.evaluation.test_benchmarks import run, summary_of
from tests.jobs.test_datagen import served
from tests.tools_server.small_corpus import write_corpus


@contextlib.contextmanager
def tools(corpus, folder, mode):
    """Starts a search server with its cache in this mode; gives its address."""
    port_file = folder / f"port-{mode}"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tools_server",
            "--corpus",
            str(corpus),
            "--port",
            "0",
            "--port-file",
            str(port_file),
            f"--config.cache.mode={mode}",
            f"--config.cache.path={folder / 'cache.sqlite'}",
        ]
    )
    try:
        deadline = time.monotonic() + 60
        while not port_file.is_file() or not port_file.read_text():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.terminate()
        process.wait(10)


def test_a_replayed_run_sees_what_the_recorded_one_saw(tmp_path):
    data, corpus = write_sets(tmp_path / "data"), write_corpus(tmp_path / "corpus")

    def evaluate(mode, scripts, only="infoseek"):
        endpoint = ScriptedEndpoint(scripts)
        with served(endpoint) as url, tools(corpus, tmp_path, mode) as server:
            assert run(tmp_path / mode, data, url, f"--config.only={only}", f"--config.tools.url={server}") == 0
        folder = tmp_path / mode / "eval" / "policy" / only
        return [[turn["observation"] for turn in s["trajectory"]["turns"]] for s in read_samples(folder)]

    recorded = evaluate("record", SCRIPTS)
    for file in ("pages.jsonl", "images.jsonl"):
        # The corpus is empty now, so all replies come from the recording.
        (corpus / file).write_text("")
    # One question now sends a query that was not recorded.
    unknown = SCRIPTS | {"Who founded it?": ["<reason>r</reason><text_search>never asked</text_search>"]}
    replayed = evaluate("replay", unknown)
    assert recorded[0] == replayed[0] and "Ostrin" in str(recorded[0])
    assert summary_of(tmp_path / "replay", "infoseek")["statuses"] == {"answered": 3, "tool_failed": 1}
