"""Work directories in a bucket, against local servers that speak the protocols."""

import contextlib
import dataclasses
import os

import obstore
import pytest

from mmsearch_jax.core import buckets, staging
from mmsearch_jax.core.buckets import is_address, normal, open_bucket
from mmsearch_jax.core.errors import DirectoryInUse, StorageError
from mmsearch_jax.core.run_lock import NAME, Owner
from mmsearch_jax.core.staging import StagedDirectory, local_copy, lock_of, native_address, portable, shown, shown_in
from tests.bucket_servers import BUCKET, bucket_server


@pytest.fixture(scope="module", params=["s3", "gs"])
def server(request):
    with bucket_server(request.param) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        buckets._google_files.cache_clear()
        yield request.param
    buckets._google_files.cache_clear()


@pytest.fixture
def address(server, request):
    return f"{server}://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}"


def names(address):
    return sorted(open_bucket(address).list())


def test_addresses_survive_pathlib():
    assert is_address("gs:/b/run") and normal("s3:/b/run/") == "s3://b/run" and normal("gs://b") == "gs://b"
    assert not is_address("runs/gs") and not is_address("http://b/run")


def test_a_work_directory_goes_there_and_comes_back(address):
    with StagedDirectory(address) as staged:
        (staged.path / "eval" / "base").mkdir(parents=True)
        (staged.path / "eval" / "base" / "samples.jsonl").write_text("1\n")
        (staged.path / "metrics.jsonl").write_text("a\n")
        (staged.path / "x.partial").write_text("not whole")
        assert shown(staged.path / "eval") == f"{address}/eval"
        staged.push()
        assert names(address) == ["eval/base/samples.jsonl", "metrics.jsonl"]
        with (staged.path / "metrics.jsonl").open("a") as file:
            file.write("b\n")
        (staged.path / "eval" / "base" / "samples.jsonl").unlink()
    assert names(address) == ["metrics.jsonl"] and not staged.path.exists()
    with StagedDirectory(address) as again:
        assert (again.path / "metrics.jsonl").read_text() == "a\nb\n"
    assert shown_in(f"nothing in {again.path}/eval: run it") == f"nothing in {address}/eval: run it"


def test_files_of_a_work_directory_name_each_other_without_its_local_place(address, tmp_path):
    with StagedDirectory(address) as staged:
        image, folder = str(staged.path / "worlds" / "a.png"), staged.path / "eval" / "x"
        assert portable(image, folder) == "../../worlds/a.png"
        assert portable("/data/a.png", folder) == "/data/a.png" and portable(image, tmp_path) == image


def test_a_kill_between_the_objects_of_a_checkpoint_leaves_the_one_before(address, monkeypatch):
    """On s3:// checkpoints are copied; gs:// is Orbax's own."""
    bucket, steps = open_bucket(address), f"checkpoints/sft/{{}}/{staging._LAST}"
    for name in ("checkpoints/sft/1/state/data", steps.format(1), "checkpoints/sft/2/state/data"):
        bucket.write(name, b"x")
    with StagedDirectory(address) as staged:
        folder = staged.path / "checkpoints" / "sft"
        if address.startswith("gs://"):
            assert not folder.exists() and native_address(folder) == f"{address}/checkpoints/sft"
            return
        assert native_address(folder) is None and [path.name for path in folder.iterdir()] == ["1"]
        written = []
        monkeypatch.setattr(staged.bucket, "upload", lambda path, name: written.append(name))
        monkeypatch.setattr(staged.bucket, "delete", written.append)
        for step in ("3", "4"):
            (folder / step / "state").mkdir(parents=True)
            (folder / step / staging._LAST).write_text("{}")
            (folder / step / "state" / "data").write_text("x")
        (folder / "5.orbax-checkpoint-tmp").mkdir()
        (folder / "5.orbax-checkpoint-tmp" / "data").write_text("x")
        (staged.path / "metrics.jsonl").write_text("a\n")
        (folder / "1" / staging._LAST).unlink()
        (folder / "1" / "state" / "data").unlink()
        staged.push()
        assert written == [
            "metrics.jsonl", "checkpoints/sft/3/state/data", "checkpoints/sft/4/state/data", steps.format(3),
            steps.format(4), steps.format(1), "checkpoints/sft/1/state/data",
        ]  # fmt: skip


def test_a_bucket_has_one_owner_and_a_dead_one_holds_nobody_up(address, monkeypatch):
    first, second = StagedDirectory(address), StagedDirectory(address)
    with lock_of(first):
        with pytest.raises(DirectoryInUse, match=rf"{address} is in use by process \d+"):
            second.bucket.write(NAME, Owner.here(os.getppid()).encode())
            lock_of(second).__enter__()
    second.bucket.write(NAME, dataclasses.replace(Owner.here(), boot="gone").encode())
    with lock_of(second):
        assert second.bucket.create(NAME, b"") is False
    assert names(address) == []


def test_of_two_that_find_a_dead_record_in_a_bucket_only_one_takes_it(address, monkeypatch):
    bucket, other = open_bucket(address), open_bucket(address)
    place = staging._BucketPlace(bucket)
    assert place.create(b"dead") and not place.create(b"another")
    look, looked = bucket.read, []

    def both_look_before_one_writes(name):
        found = look(name)
        if not looked:
            looked.append(name)
            other.write(name, b"second")
        return found

    # S3's client reads the object and its tag at once; there the other one writes between two operations of the client.
    if address.startswith("gs://"):
        monkeypatch.setattr(bucket, "read", both_look_before_one_writes)
    else:
        put = obstore.put

        def the_other_writes_first(*of, **more):
            monkeypatch.undo()
            other.write(NAME, b"second")
            return put(*of, **more)

        monkeypatch.setattr(obstore, "put", the_other_writes_first)
    assert not place.replace(b"dead", b"first")
    assert place.read() == b"second"
    monkeypatch.undo()
    assert not place.replace(b"dead", b"third") and place.replace(b"second", b"third") and place.read() == b"third"
    place.remove()
    assert not place.replace(b"third", b"fourth") and place.read() is None


def test_a_directory_that_another_run_holds_leaves_no_folder_here(address, tmp_path, monkeypatch):
    monkeypatch.setattr(staging.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(DirectoryInUse), lock_of(StagedDirectory(address)):
        held = StagedDirectory(address)
        held.bucket.write(NAME, Owner.here(os.getppid()).encode())
        with lock_of(held), held:
            pass
    assert list(tmp_path.iterdir()) == []
    open_bucket(address).delete(NAME)


def test_what_is_read_is_copied_once(address):
    bucket = open_bucket(address)
    bucket.write("set/rows.jsonl", b"1")
    bucket.write("set/images/a.png", b"2")
    folder = local_copy(f"{address}/set")
    assert (folder / "images" / "a.png").read_bytes() == b"2" and local_copy(f"{address}/set") == folder
    file = local_copy(f"{address}/set/rows.jsonl")
    assert file.name == "rows.jsonl" and file.read_bytes() == b"1" and shown(file) == f"{address}/set/rows.jsonl"
    with pytest.raises(StorageError, match=f"nothing at {address}/none"):
        local_copy(f"{address}/none")


def test_a_missing_bucket_and_a_missing_package_are_told_in_one_line(server, monkeypatch):
    with pytest.raises(
        StorageError, match=rf"{server}://missing/run cannot be used .*docs/launch.md, Buckets"
    ) as error:
        open_bucket(f"{server}://missing/run")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StorageError, match=r"needs the package .*: pip install 'mmsearch-jax\[bucket\]'"):
        open_bucket(f"{server}://{BUCKET}/run")


def test_a_failing_copy_is_tried_again_and_at_the_end_the_files_are_kept(address, monkeypatch):
    staged = StagedDirectory(address)

    def fails(*_):
        raise StorageError("no network")

    with (
        pytest.raises(StorageError, match="no network; what could not be copied is kept in"),
        contextlib.ExitStack() as s,
    ):
        s.enter_context(staged)
        (staged.path / "metrics.jsonl").write_text("a\n")
        monkeypatch.setattr(staged.bucket, "upload", fails)
    assert (staged.path / "metrics.jsonl").is_file()
    monkeypatch.undo()
    staged.push()
    assert names(address) == ["metrics.jsonl"]
