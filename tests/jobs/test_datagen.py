"""`mmsearch datagen` end to end: a scripted teacher over HTTP, the real search server, a kill in the middle."""

import asyncio
import contextlib
import io
import json
import socket
import threading

import pytest
from aiohttp import web

from mmsearch_jax.commands import main as cli
from mmsearch_jax.core.protocol import ImageSearch, TextSearch, parse_turn
from mmsearch_jax.data.rows import Row, validate
from mmsearch_jax.data.storage import read_rows, write_rows
from mmsearch_jax.jobs.search_server import start_server
from tests.datagen.scripted_teacher import ScriptedTeacher
from tests.tools_server.small_corpus import scene, write_corpus

BAD = {
    "broken": "invalid_turn",
    "endless": "too_many_turns",
    "twice": "over_limit",
    "give up": "gave_up",
    "refuse": "refused",
    "timeout": "teacher_failed",
    "wrong": "wrong_answer",
    "unlabelled": "unlabelled",
}


def picture():
    out = io.BytesIO()
    scene("Flag of Velmora", "Flag of Harland")[0].save(out, "PNG")
    return out.getvalue()


def seeds(path, bad=()):
    image = picture()
    rows = [
        Row(f"capital-{i}", image, "What is the capital of the land of the flag on the left?", ("Ostrin",), "", None)
        for i in range(4)
    ]
    rows += [Row(f"count-{i}", image, "How many flags are there?", ("2",), "visual", False) for i in range(6)]
    rows += [Row(f"bad-{word}", image, f"How many flags? ({word})", ("2",), "", None) for word in bad]
    if bad:
        rows.append(rows[0])  # a repeated id
        rows.append(Row("bad-image", b"no image", "How many?", ("2",), "", None))
        # Answered without a search, although the seed says that a search is needed.
        rows.append(Row("bad-mismatch", image, "How many flags are seen?", ("2",), "", True))
    write_rows(rows, path)
    return path


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    with start_server(write_corpus(tmp_path_factory.mktemp("world") / "corpus")) as server:
        yield server.url


@contextlib.contextmanager
def served(teacher):
    """Runs the teacher in its own thread, like another machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def serve():
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", teacher.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        started.set()
        await stop.wait()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def datagen(work, path, tools, url, *more):
    values = {
        "seeds.path": path,
        "tools.url": tools,
        "teacher.url": url,
        "teacher.model": "t",
        "teacher.deadline_s": 2.0,
        "concurrency": 4,
        "tokenizer": "assets/tiny-base",
        "episode.max_tool_calls": 3,
        "episode.max_trajectory_tokens": 4000,
        "balance.size": 0,
    }
    settings = [f"--config.{key}={value}" for key, value in values.items()]
    return cli.main(["datagen", "--workdir", str(work), *settings, *more])


def journal(work):
    records = [json.loads(line) for line in (work / "journal.jsonl").read_text().splitlines()]
    return [record for record in records if "id" in record]


def test_conversations_are_made_and_every_failure_is_counted(tmp_path, tools, capsys):
    teacher = ScriptedTeacher()
    with served(teacher) as url:
        assert datagen(tmp_path, seeds(tmp_path / "seeds.array_record", BAD), tools, url) == 0
    outcomes = {record["id"]: record["outcome"] for record in journal(tmp_path)}
    assert {name: outcomes[f"bad-{name}"] for name in BAD} == BAD
    assert outcomes["bad-image"] == "unreadable_image" and outcomes["bad-mismatch"] == "search_mismatch"
    assert sum(outcome == "kept" for outcome in outcomes.values()) == 10
    rows = read_rows(tmp_path / "rows.array_record")
    assert len(rows) == 8 and sum(row.search_required for row in rows) == 4
    assert all(not validate(row) for row in rows) and teacher.saw_image
    searched = next(row for row in rows if row.search_required)
    kinds = [type(parse_turn(turn.text).action) for turn in searched.turns]
    assert kinds[:2] == [ImageSearch, TextSearch] and len(kinds) == 3
    assert searched.turns[0].box is not None and "Ostrin" in searched.turns[1].observation
    assert searched.category == "Place" and searched.provenance["search_required_by"] == "teacher"
    sheet = json.loads((tmp_path / "datasheet.json").read_text())
    assert sum(sheet["stages"].values()) == len(outcomes) == 20
    assert sheet["set"]["rows"] == 8 and sheet["set"]["tools"]["cropped image search and text search"] == 4
    # An invalid label is asked for again within one call.
    assert sheet["spent"]["teacher_calls"] == teacher.asked - (teacher.unlabelled - 1) and teacher.unlabelled > 1
    assert "| kept | 10 |" in (tmp_path / "datasheet.md").read_text()
    assert "8 rows" in capsys.readouterr().out


def test_a_killed_run_goes_on_where_it_was(tmp_path, tools, capsys):
    path, teacher = seeds(tmp_path / "seeds.jsonl"), ScriptedTeacher()
    with served(teacher) as url:
        # Each of the first seeds takes four calls, so the budget ends within the fourth seed.
        more = ["--config.budget.teacher_calls=14", "--config.concurrency=1"]
        assert datagen(tmp_path / "a", path, tools, url, *more) == 2
        assert len(journal(tmp_path / "a")) == 3 and teacher.asked == 14
        assert "budget.teacher_calls (14) is spent" in capsys.readouterr().err
        with (tmp_path / "a" / "journal.jsonl").open("a") as file:
            file.write('{"id": "torn')
        assert datagen(tmp_path / "a", path, tools, url) == 0
        names = [record["id"] for record in journal(tmp_path / "a")]
        assert len(names) == len(set(names)) == 10
        spent = journal(tmp_path / "a")[-1]["spent"]["teacher_calls"]
        asked = teacher.asked
        assert datagen(tmp_path / "a", path, tools, url) == 0 and teacher.asked == asked
        assert datagen(tmp_path / "b", path, tools, url) == 0
        assert read_rows(tmp_path / "a" / "rows.array_record") == read_rows(tmp_path / "b" / "rows.array_record")
    assert spent == asked


def test_a_target_policy_measures_where_a_search_is_needed(tmp_path, tools):
    class Target:
        asked = 0

        async def handle(self, request):
            self.asked += 1
            text = (await request.json())["messages"][0]["content"][-1]["text"]
            said = "2" if "How many" in text else "I do not know"
            return web.json_response({"choices": [{"message": {"content": said}}]})

    target = Target()
    with served(ScriptedTeacher()) as url, served(target) as target_url:
        more = [
            f"--config.labels.target.url={target_url}",
            "--config.labels.target.model=p",
            "--config.labels.samples=3",
        ]
        assert datagen(tmp_path, seeds(tmp_path / "seeds.tar"), tools, url, *more) == 0
    rows = read_rows(tmp_path / "rows.array_record")
    assert {row.id.split("-")[0]: row.search_required for row in rows} == {"capital": True, "count": False}
    assert {row.provenance["search_required_by"] for row in rows} == {"target"} and target.asked == 30


def test_mistakes_are_one_line(tmp_path, tools, capsys):
    path = seeds(tmp_path / "seeds.jsonl")
    with served(ScriptedTeacher()) as url:
        assert datagen(tmp_path / "a", path, "", url) == 2
        assert "tools.url is empty" in capsys.readouterr().err
        assert datagen(tmp_path / "a", path, "http://127.0.0.1:9", "ftp://x") == 2
        assert "teacher" in capsys.readouterr().err
        assert datagen(tmp_path / "c", tmp_path / "none.jsonl", tools, url) == 2
        assert "no rows at" in capsys.readouterr().err
        assert datagen(tmp_path / "b", path, tools, url) == 0
        assert datagen(tmp_path / "b", path, tools, url, "--config.episode.max_tool_calls=2") == 2
        assert "made with other values of episode" in capsys.readouterr().err


def test_a_dead_teacher_ends_the_run(tmp_path, tools, capsys):
    path = seeds(tmp_path / "seeds.jsonl")
    more = ["--config.max_failures=3", "--config.teacher.deadline_s=0.3"]
    assert datagen(tmp_path / "a", path, tools, "http://127.0.0.1:9/v1", *more) == 2
    assert "consecutive seeds failed" in capsys.readouterr().err
