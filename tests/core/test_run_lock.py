"""One job at a time in a work directory; a dead job's lock holds nobody up."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading

import pytest

from mmsearch_jax.core import run_lock
from mmsearch_jax.core.errors import DirectoryInUse, StorageError
from mmsearch_jax.core.run_lock import NAME, LocalPlace, Owner, RunLock

_HOLD = """
import sys, time
from mmsearch_jax.core.run_lock import RunLock
with RunLock.of(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def lock(tmp_path, sleep=None):
    return RunLock(str(tmp_path), LocalPlace(tmp_path / NAME), sleep=sleep or (lambda _: None))


def test_a_second_process_is_refused_and_told_who_holds_the_directory(holder, tmp_path):
    with pytest.raises(
        DirectoryInUse, match=rf"in use by process {holder.pid} on .* since \d{{4}}-.*UTC \(-c"
    ) as refused:
        lock(tmp_path).__enter__()
    assert "\n" not in str(refused.value) and "--workdir" in str(refused.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock(tmp_path):
        assert Owner.read((tmp_path / NAME).read_bytes()).pid == os.getpid()
    assert not (tmp_path / NAME).exists()


def test_this_process_may_take_its_own_lock_again(tmp_path):
    with RunLock.of(tmp_path):
        with RunLock.of(tmp_path):
            pass
        assert (tmp_path / NAME).exists()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"boot": "another boot/1"}, {"pid": os.getpid(), "boot": "x"}])
def test_a_record_of_a_process_that_is_gone_is_replaced_at_once(tmp_path, change):
    (tmp_path / NAME).write_bytes(dataclasses.replace(Owner.here(), **change).encode())
    with lock(tmp_path, lambda _: pytest.fail("nothing to wait for")):
        pass


def test_a_record_that_was_cut_short_holds_nobody_up(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"host": "a')
    with lock(tmp_path):
        pass


def test_a_lock_of_another_host_is_kept_while_it_beats_and_taken_when_it_is_silent(tmp_path):
    far = dataclasses.replace(Owner.here(), host="elsewhere")
    (tmp_path / NAME).write_bytes(far.encode())

    def beats(_):
        (tmp_path / NAME).write_bytes(dataclasses.replace(far, beat=far.beat + 1).encode())

    with pytest.raises(DirectoryInUse, match="on elsewhere"):
        lock(tmp_path, beats).__enter__()
    (tmp_path / NAME).write_bytes(far.encode())
    waits = []
    with lock(tmp_path, waits.append):
        assert sum(waits) == 60
    assert not (tmp_path / NAME).exists()


def test_of_two_that_find_a_dead_record_only_one_takes_it(tmp_path):
    dead = dataclasses.replace(Owner.here(), boot="gone").encode()
    place = LocalPlace(tmp_path / NAME)
    assert place.create(dead)
    assert place.replace(dead, b"first") and not place.replace(dead, b"second")
    assert place.read() == b"first"


def test_a_holder_whose_lock_was_taken_is_told_and_leaves_the_other_s_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "_BEAT_S", 0.01)
    lost, place = threading.Event(), LocalPlace(tmp_path / NAME)
    with RunLock("here", place, lost=lost.set):
        other = dataclasses.replace(Owner.here(), host="elsewhere").encode()
        (tmp_path / NAME).write_bytes(other)
        assert lost.wait(30)
    assert place.read() == other
    assert "here was taken by another process while this one stood still" in capsys.readouterr().err


class _LostReply(LocalPlace):
    """Writes, but its first reply to `replace` is lost."""

    def __init__(self, path):
        super().__init__(path)
        self.replies = iter([StorageError("no reply")])
        self.renewed = threading.Event()

    def replace(self, old, new):
        done = super().replace(old, new)
        for error in self.replies:
            raise error
        if done:
            self.renewed.set()
        return done


def test_a_beat_whose_reply_was_lost_is_not_taken_for_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_BEAT_S", 0.01)
    place, lost = _LostReply(tmp_path / NAME), []
    with RunLock("here", place, lost=lambda: lost.append(True)):
        assert place.renewed.wait(30) and not lost
    assert place.read() is None
