"""A run that is killed loses only the seeds in progress."""

import json
import os
import signal
import subprocess
import sys
import time

from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.jobs.search_server import start_server
from tests.datagen.scripted_teacher import ScriptedTeacher
from tests.jobs.test_datagen import datagen, journal, seeds, served
from tests.tools_server.small_corpus import write_corpus


def test_a_run_killed_by_the_system_goes_on(tmp_path):
    path, work, teacher = seeds(tmp_path / "seeds.jsonl"), tmp_path / "work", ScriptedTeacher(delay_s=0.2)
    with start_server(write_corpus(tmp_path / "corpus")) as tools, served(teacher) as url:
        command = "import sys; from tests.jobs.test_datagen import datagen; sys.exit(datagen(*sys.argv[1:]))"
        process = subprocess.Popen([sys.executable, "-c", command, str(work), str(path), tools.url, url])
        deadline = time.monotonic() + 60
        while not (work / "journal.jsonl").is_file() or not journal(work):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = [record["id"] for record in journal(work)]
        assert 0 < len(before) < 10 and not (work / "rows.array_record").exists()
        assert datagen(work, path, tools.url, url) == 0
    names = [record["id"] for record in journal(work)]
    assert names[: len(before)] == before and len(names) == len(set(names)) == 10
    assert len(read_rows(work / "rows.array_record")) == 8
    assert json.loads((work / "datasheet.json").read_text())["stages"] == {"kept": 10}
