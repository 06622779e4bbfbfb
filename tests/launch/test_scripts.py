"""The launch scripts: shellcheck, dry runs, and a `gcloud`, `srun` and `scontrol` that record calls and can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import fakes

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
TRAIN = ["sft", "--workdir", "/mnt/it's here"]

# Answers like gcloud. $FAKE holds: calls, states (one line per describe), rcs (one line per read of job.rc).
GCLOUD = r"""#!/usr/bin/env bash
printf '%s\n' "$*" | tr '\n' ' ' >> "$FAKE/calls"; echo >> "$FAKE/calls"
next() { [ -s "$FAKE/$1" ] || return 1; head -n 1 "$FAKE/$1"; [ "$(wc -l < "$FAKE/$1")" = 1 ] || sed -i 1d "$FAKE/$1"; }
case "$*" in
  *"queued-resources create"*) if [ -f "$FAKE/create_error" ]; then cat "$FAKE/create_error" >&2; exit 1; fi;;
  *failedData*) cat "$FAKE/failed";;
  *"queued-resources describe"*) next states;;
  *"cat ~/mmsearch/job.rc"*) rc="$(next rcs)"; [ "$rc" != broken ] || exit 255; [ "$rc" = running ] || echo "$rc";;
esac
"""


@pytest.fixture
def fake(tmp_path):
    """Runs a script with the fakes first on the path."""
    recorder = '#!/usr/bin/env bash\necho "{0} $*" >> "$FAKE/calls"\n[ {0} = scontrol ] || exit "${{SRUN_CODE:-0}}"\n'
    others = {name: recorder.format(name) for name in ("srun", "scontrol", "nvidia-smi")}
    run_script, state = fakes.runner(tmp_path, {"gcloud": GCLOUD, **others})

    def run(script, *arguments, **options):
        done = run_script(script, *arguments, **options)
        return done, fakes.calls(state)

    return run


def tpu(fake, *more, step="up", files=(), **environment):
    return fake(
        "tpu_queued_resource.sh",
        step,
        "--name",
        "run1",
        "--zone",
        "z",
        "--type",
        "v5p-16",
        "--poll",
        "0",
        *more,
        "--",
        *TRAIN,
        files={"states": "ACTIVE\n", "rcs": "0\n", **dict(files)},
        **environment,
    )


def test_shellcheck_has_nothing_to_say():
    scripts = sorted(map(str, [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")]))
    assert len(scripts) >= 4
    checker = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([str(checker), *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_a_slice_is_asked_for_used_and_deleted(fake):
    done, calls = tpu(
        fake, "--spot", files={"states": "WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n", "rcs": "running\n0\n"}
    )
    assert done.returncode == 0, done.stderr
    assert "queued-resources create run1" in calls[0] and "--spot" in calls[0] and "v2-alpha-tpuv5 " in calls[0]
    kinds = [("scp" if " scp " in call else "rc" if "job.rc 2>" in call else call.split()[3]) for call in calls]
    assert kinds == ["create", "describe", "describe", "describe", "scp", "ssh", "ssh", "rc", "rc", "delete"]


def test_the_remote_command_keeps_every_word_as_it_was_given(fake, tmp_path):
    _, calls = tpu(fake, step="run")
    remote = calls[0].split("--command ", 1)[1]
    # Runs the worker's shell command, with a fake `mmsearch`.
    home = tmp_path / "home"
    (home / "mmsearch" / ".venv" / "bin").mkdir(parents=True)
    (home / "mmsearch" / "launch").mkdir()
    (home / "mmsearch" / "launch" / "env.sh").write_text((LAUNCH / "env.sh").read_text())
    program = home / "mmsearch" / ".venv" / "bin" / "mmsearch"
    program.write_text('#!/usr/bin/env bash\nprintf "<%s>" "$@"; echo " key=$SECRET_KEY"; exit 3\n')
    program.chmod(0o755)
    (home / ".mmsearch_secrets").write_text("SECRET_KEY=abc\n")
    subprocess.run(["bash", "-c", remote + " wait"], env={**os.environ, "HOME": str(home)}, timeout=30, check=True)
    assert (home / "mmsearch" / "job.log").read_text() == "<sft><--workdir></mnt/it's here><--distributed> key=abc\n"
    assert (home / "mmsearch" / "job.rc").read_text() == "3\n"


@pytest.mark.parametrize(
    ("states", "rcs"),
    [
        ("ACTIVE\nSUSPENDED\nACTIVE\n", "broken\n0\n"),  # deleted during the job: the worker cannot be reached
        ("ACTIVE\nACTIVE\nACTIVE\n", "75\n0\n"),  # the trainer got the signal, saved and ended
        ("SUSPENDED\nSUSPENDED\nACTIVE\n", "0\n"),  # deleted before the job started
    ],
)
def test_a_pre_empted_slice_is_asked_for_again_and_the_command_run_again(fake, states, rcs):
    done, calls = tpu(fake, files={"states": states, "rcs": rcs})
    assert done.returncode == 0, done.stderr
    assert sum("create" in call for call in calls) == 2
    assert sum("queued-resources delete" in call for call in calls) == 2
    assert "requesting it again (attempt 1 of 20)" in done.stdout


def test_what_the_user_must_mend_is_not_tried_again(fake):
    done, calls = tpu(fake, files={"rcs": "2\n"})
    assert done.returncode == 2 and "an error that you must fix" in done.stderr
    assert sum("create" in call for call in calls) == 1


@pytest.mark.parametrize("code", ["1", "2", "137"])
@pytest.mark.parametrize("keep", [(), ("--keep",)])
def test_a_slice_whose_run_failed_is_deleted_after_its_last_lines_are_shown(fake, code, keep):
    done, calls = tpu(fake, *keep, files={"rcs": f"{code}\n"})
    assert done.returncode == 2
    deleted = [number for number, call in enumerate(calls) if "queued-resources delete" in call]
    shown = [number for number, call in enumerate(calls) if "tail -n 200 ~/mmsearch/job.log" in call]
    if keep:
        assert not deleted and "the slice is kept and billed" in done.stderr
    else:
        assert shown < deleted and len(deleted) == 1


def test_nothing_is_requested_that_the_check_refuses(fake, tmp_path):
    keys = tmp_path / "keys.env"
    keys.write_text("A=1\n")
    done, calls = tpu(fake, "--secrets", str(keys), CHECK_CODE="2")
    assert done.returncode == 2 and calls == []
    (checked,) = (tmp_path / "fake" / "checked").read_text().splitlines()
    assert checked.startswith(f"check --topology v5p-16 --mount /mnt --secrets {keys} -- sft --workdir /mnt/it's here")


@pytest.mark.parametrize("script", ["slurm.sbatch", "gpu_node.sh"])
def test_what_the_check_refuses_is_not_started(fake, script, tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    program = tmp_path / "venv" / "bin" / "mmsearch"
    program.touch(0o755)
    words = {"SLURM_SUBMIT_DIR": str(ROOT), "MMSEARCH_VENV": str(tmp_path / "venv"), "SLURM_NTASKS": "16"}
    words |= {"SLURM_NNODES": "2", "MMSEARCH_SHARED": "/scratch", "CHECK_CODE": "2", "MMSEARCH_DRY_RUN": "1"}
    done, calls = fake(script, *TRAIN, **words)
    assert done.returncode == 2 and "the check refuses" in done.stderr
    assert not [call for call in calls if not call.startswith("nvidia-smi")]
    (checked,) = (tmp_path / "fake" / "checked").read_text().splitlines()
    if script == "slurm.sbatch":
        assert checked.startswith(f"check --shared {ROOT} --shared /scratch --processes 16 --machines 2 -- sft")
    else:
        assert checked.startswith("check --processes 1 -- sft")


@pytest.mark.parametrize("script", ["slurm.sbatch", "gpu_node.sh"])
def test_a_dry_run_needs_neither_gpus_nor_an_environment(script, tmp_path):
    copy, programs = tmp_path / "copy", tmp_path / "programs"
    shutil.copytree(LAUNCH, copy / "launch")
    programs.mkdir()
    for name in ("bash", "dirname", "printf", "python3"):
        (programs / name).symlink_to(shutil.which(name))
    # A Python without the packages that the check needs.
    (programs / "python3").unlink()
    (programs / "python3").write_text("#!/bin/bash\ncase $2 in *ml_collections*) exit 1;; *print*) echo 312;; esac\n")
    (programs / "python3").chmod(0o755)
    environment = {"PATH": str(programs), "HOME": str(tmp_path), "MMSEARCH_DRY_RUN": "1"}
    done = subprocess.run(
        [str(programs / "bash"), str(copy / "launch" / script), *TRAIN],
        capture_output=True, text=True, cwd=copy, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "note: the command is not checked" in done.stderr and "sft --workdir" in done.stdout


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("ERROR: Quota exceeded for TPUS in z", "no quota for v5p-16 in z"),
        ("ERROR: PERMISSION_DENIED: tpu.nodes.create", "the role TPU Admin"),
        ("ERROR: ALREADY_EXISTS: run1", "delete --name run1 --zone z"),
        ("ERROR: You do not currently have an active account selected.", "gcloud auth login"),
        ("ERROR: The required property [project] is not currently set.", "--project ID"),
        ("ERROR: reason: SERVICE_DISABLED", "gcloud services enable tpu.googleapis.com"),
        ("ERROR: something else", "the slice could not be requested (see above)"),
    ],
)
def test_a_refusal_says_what_to_do(fake, said, message):
    done, calls = tpu(fake, files={"create_error": said})
    assert done.returncode == 2 and message in done.stderr
    assert len(calls) == 1


def test_a_request_that_fails_for_want_of_quota_is_not_made_again(fake):
    done, calls = tpu(
        fake, files={"states": "ACCEPTED\nFAILED\n", "failed": "Quota limit 'TPUV5P' has been exceeded.\n"}
    )
    assert done.returncode == 2 and "no quota for v5p-16 in z" in done.stderr
    assert sum("create" in call for call in calls) == 1


def test_a_request_that_fails_otherwise_is_made_again_with_its_reason(fake):
    done, calls = tpu(fake, files={"states": "FAILED\nFAILED\nACTIVE\n", "failed": "an internal error\n"})
    assert done.returncode == 0 and "an internal error" in done.stderr
    assert sum("create" in call for call in calls) == 2


@pytest.mark.parametrize(
    ("script", "options", "program"),
    [
        ("tpu_queued_resource.sh", "--zone z --type v5p-16", "gcloud"),
        ("gke.sh", "--image i --bucket b --topology v5p:2x2x4", "kubectl"),
        ("xpk.sh", "--image i --topology v5p:2x2x4 --cluster c --zone z --project p", "xpk"),
    ],
)
def test_a_program_that_is_not_installed_is_named_with_where_it_comes_from(tmp_path, script, options, program):
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    done = subprocess.run(
        [shutil.which("bash"), str(LAUNCH / script), "up", "--name", "a", *options.split(), "--", *TRAIN],
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path)},
    )
    assert done.returncode == 2 and done.stderr.startswith(f"error: {program} is not installed: "), done.stderr


def test_secrets_go_as_a_file_and_never_as_an_argument(fake, tmp_path):
    secrets = tmp_path / "keys.env"
    secrets.write_text("JUDGE_API_KEY=sk-very-secret\n")
    done, calls = tpu(fake, "--secrets", str(secrets))
    assert done.returncode == 0
    assert any(str(secrets) in call for call in calls)
    assert "sk-very-secret" not in "".join(calls) + done.stdout + done.stderr


def test_a_dry_run_calls_nothing(fake):
    done, calls = tpu(fake, "--dry-run")
    assert done.returncode == 0 and calls == []
    assert "+ gcloud compute tpus queued-resources create run1" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("tpu_queued_resource.sh", ["fly"], "unknown step 'fly'"),
        ("tpu_queued_resource.sh", ["up", "--name", "a"], "--zone is missing"),
        ("tpu_queued_resource.sh", ["up", "--name", "a", "--zone", "z", "--type", "v5p-16"], "no training command"),
        ("tpu_queued_resource.sh", ["up", "--name"], "--name needs a value"),
        ("tpu_queued_resource.sh", ["push", "--name", "a", "--zone", "z", "--secrets", "/no"], "no file /no"),
        ("slurm.sbatch", [], "no training command"),
        ("gpu_node.sh", [], "no training command"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(fake, script, arguments, message):
    done, calls = fake(script, *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert calls == []


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (1, False)])
def test_a_slurm_job_that_was_pre_empted_goes_back_into_the_queue(fake, tmp_path, code, requeued):
    program = tmp_path / "venv" / "bin" / "mmsearch"
    program.parent.mkdir(parents=True)
    program.write_text("")
    program.chmod(0o755)
    done, calls = fake(
        "slurm.sbatch",
        *TRAIN,
        SLURM_SUBMIT_DIR=str(ROOT),
        MMSEARCH_VENV=str(tmp_path / "venv"),
        SLURM_JOB_ID="17",
        SRUN_CODE=str(code),
    )
    assert done.returncode == code
    assert calls[0] == f"srun --kill-on-bad-exit=0 {program} sft --workdir /mnt/it's here --distributed"
    assert ("scontrol requeue 17" in calls) == requeued


def test_on_a_gpu_machine_help_and_a_dry_run_start_nothing(fake):
    done, calls = fake("gpu_node.sh", "--help")
    assert done.returncode == 0 and done.stdout.startswith("Runs a training command on the GPUs") and calls == []
    assert "--dry-run" in done.stdout and "set -euo" not in done.stdout
    done, _ = fake("gpu_node.sh", "--dry-run", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == fake("gpu_node.sh", *TRAIN, MMSEARCH_DRY_RUN="1")[0].stdout


def test_on_a_gpu_machine_the_search_server_stands_beside_the_trainer(fake, tmp_path):
    done, _ = fake("gpu_node.sh", "grpo", "--workdir", "runs/g", MMSEARCH_DRY_RUN="1", MMSEARCH_CORPUS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    serve, train = (line for line in done.stdout.splitlines() if "mmsearch " in line)
    assert f"serve-tools --corpus {tmp_path} --port 8765" in serve
    assert train.endswith("grpo --workdir runs/g --config.tools.url=http://127.0.0.1:8765")
    done, _ = fake("gpu_node.sh", "grpo", MMSEARCH_CORPUS="/nowhere", MMSEARCH_DRY_RUN="1")
    assert done.returncode == 2 and "/nowhere" in done.stderr


@pytest.mark.parametrize("has", ["python3", "python3.12", ""])
def test_the_environment_is_made_with_a_python_that_is_new_enough(tmp_path, has):
    """Runs a copy of the script, so that it finds no environment; "" is a machine whose Python is too old."""
    copy, programs = tmp_path / "copy" / "launch", tmp_path / "programs"
    copy.mkdir(parents=True)
    programs.mkdir()
    (copy / "install.sh").write_text((LAUNCH / "install.sh").read_text())
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        (programs / name).write_text(f"#!/bin/bash\ncase $2 in *sys.exit*) [ {name} = '{has}' ];; *) echo 312;; esac\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(copy / "install.sh"), "tpu"],
        capture_output=True,
        text=True,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "MMSEARCH_DRY_RUN": "1"},
    )
    lines = done.stdout.splitlines()
    assert f"+ {has or 'python3.11'} -m venv .venv" in lines
    assert lines[-1].endswith(".ci/constraints-py312.txt --editable .\\[tpu\\]")
    assert ("+ sudo apt-get install -y -q python3.11 python3.11-venv" in lines) == (not has)
