"""An evaluation from rows to files, with a scripted policy and fake tools."""

import dataclasses
import json
import os

import pytest

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, FakeTools, Play
from mmsearch_jax.core.errors import DataError, DirectoryInUse, ToolFailed, ToolUnavailable
from mmsearch_jax.core.run_lock import NAME, Owner
from mmsearch_jax.data.rows import Row
from mmsearch_jax.evaluation.benchmark_run import Evaluation, evaluate
from mmsearch_jax.evaluation.policies import EnginePolicy
from mmsearch_jax.evaluation.terminal_tables import print_table
from tests.data import odd_images

DIRECT = Play(1, ["<reason>I see it</reason><answer>Lima</answer>"])
SEARCH = Play(
    2, ["<reason>look it up</reason><text_search>capital</text_search>", "<reason>read</reason><answer>Quito</answer>"]
)
BROKEN = Play(3, ["<reason>look it up</reason><text_search>broken</text_search>"])


class Tools(FakeTools):
    def __init__(self, down: bool = False):
        super().__init__()
        self.down = down

    async def wait_ready(self, timeout_s: float = 30.0) -> None:
        if self.down:
            raise ToolUnavailable("no search server")


def rows_for(folder, *plays):
    rows = []
    for play in plays:
        image = folder / f"{play.number}.png"
        image.write_bytes(scripted.picture(play.number))
        needs_search = play is not DIRECT
        rows.append(
            Row(
                f"r{play.number}",
                str(image),
                play.question,
                ("Lima",),
                "two_hop" if needs_search else "visual",
                needs_search,
            )
        )
    return rows


def run(rows, plays, workdir, tools=None):
    policy = EnginePolicy(lambda rules: scripted.engine(*plays), {"fingerprint": "f"})
    return evaluate(policy, rows, Evaluation("x", "b", CONFIG), tools or Tools(), workdir, show_progress=False)


def test_samples_and_summary_tell_right_from_wrong_from_broken_and_from_unreadable(tmp_path, capsys):
    plays = (DIRECT, SEARCH, BROKEN)
    rows = rows_for(tmp_path, *plays)
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    rows.append(Row("bad", str(tmp_path / "bad.jpg"), DIRECT.question, ("Lima",), "visual", False))
    summary = run(rows, plays, tmp_path)
    assert summary == json.loads((tmp_path / "eval" / "x" / "summary.json").read_text())
    lines = (tmp_path / "eval" / "x" / "samples.jsonl").read_text().splitlines()
    outcomes = {record["row"]["id"]: record["correct"] for record in map(json.loads, lines)}
    assert outcomes == {"r1": True, "r2": False, "r3": None}
    assert (summary["n"], summary["accuracy"], summary["infrastructure_failures"]) == (2, 0.5, 1)
    assert summary["statuses"] == {"answered": 2, "tool_failed": 1}
    assert (summary["searches_per_question"], summary["needless_search_rate"]) == (0.5, 0.0)
    assert summary["unreadable_rows"].keys() == {"bad"}
    print_table([summary])
    printed = capsys.readouterr().out
    assert "50.0!" in printed
    assert "1 of 3 episodes failed" in printed


def test_rows_that_no_episode_can_show_are_left_out_with_reasons_and_text_only_ones_are_asked(tmp_path):
    plays = (DIRECT, SEARCH)
    rows = rows_for(tmp_path, *plays)
    odd_images.write_all(tmp_path)
    narrow = dataclasses.replace(rows[0], id="narrow", image=str(tmp_path / "narrow.png"))
    several = dataclasses.replace(rows[0], id="several", more_images=(rows[1].image,))
    text_only = dataclasses.replace(rows[0], id="text", image="")
    summary = run([*rows, narrow, several, text_only], plays, tmp_path)
    assert summary["unreadable_rows"].keys() == {"narrow", "several"} and summary["n"] == 3
    assert "too narrow" in summary["unreadable_rows"]["narrow"] and "2 images" in summary["unreadable_rows"]["several"]


def test_more_rows_that_cannot_be_asked_than_the_limit_stop_the_evaluation(tmp_path):
    rows = rows_for(tmp_path, DIRECT, SEARCH)
    rows[1] = dataclasses.replace(rows[1], image=str(tmp_path / "gone.png"))
    policy = EnginePolicy(lambda rules: scripted.engine(DIRECT), {"fingerprint": "f"})
    with pytest.raises(DataError, match=r"'x': 1 of 2 rows cannot be asked \(r2: image: .*eval.max_unusable \(0.4\)"):
        evaluate(policy, rows, Evaluation("x", "b", CONFIG), Tools(), tmp_path, max_unusable=0.4, show_progress=False)
    assert not list(tmp_path.glob("eval/x/samples*"))


def test_a_server_that_is_down_is_said_before_anything_is_asked(tmp_path):
    with pytest.raises(ToolUnavailable, match="no search server"):
        run(rows_for(tmp_path, SEARCH), (SEARCH,), tmp_path, Tools(down=True))
    assert not list(tmp_path.glob("eval/x/samples*"))


def test_when_every_episode_broke_there_is_no_accuracy_of_zero(tmp_path):
    with pytest.raises(ToolFailed, match="every episode failed; the first: HTTP 500"):
        run(rows_for(tmp_path, BROKEN), (BROKEN,), tmp_path)


def test_no_rows_and_repeated_rows_are_named(tmp_path):
    with pytest.raises(DataError, match="has no rows"):
        run([], (DIRECT,), tmp_path)
    rows = rows_for(tmp_path, DIRECT)
    with pytest.raises(DataError, match="repeated ids"):
        run(rows + rows, (DIRECT,), tmp_path)


def test_two_processes_do_not_append_to_one_log(tmp_path):
    folder = tmp_path / "eval" / "x"
    folder.mkdir(parents=True)
    (folder / f"samples.{NAME}").write_bytes(Owner.here(os.getppid()).encode())
    with pytest.raises(DirectoryInUse, match=f"{folder} is in use by process {os.getppid()}"):
        run(rows_for(tmp_path, DIRECT), (DIRECT,), tmp_path)
    assert not (folder / "run.json").exists()
