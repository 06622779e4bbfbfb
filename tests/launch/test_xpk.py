"""The script for XPK against an `xpk` that can fail (conftest.py)."""

import itertools
import json
import subprocess

import pytest

from tests.launch.test_gke import TRAIN

XPK_RUN = [
    "--cluster",
    "c",
    "--zone",
    "z",
    "--project",
    "p",
    "--name",
    "run1",
    "--image",
    "reg/mm:1",
    "--topology",
    "v5e:4x8:2",
]


def test_xpk_is_asked_for_slices_that_restart_on_what_a_restart_mends(fake):
    done, calls, _ = fake("xpk.sh", "up", *XPK_RUN, "--storage", "runs", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    words = calls[0][1:-1].split("><")
    value = dict(itertools.pairwise(words))
    assert words[:3] == ["xpk", "workload", "create"]
    assert (value["--tpu-type"], value["--num-slices"], value["--storage"]) == ("v5litepod-4x8", "2", "runs")
    assert value["--restart-on-exit-codes"] == "1,75" and value["--max-restarts"] == "50"
    # The command that XPK gives to the container's bash.
    said = subprocess.run(
        ["bash", "-c", "exec() { printf '<%s>' \"$@\"; }; " + value["--command"]], capture_output=True, text=True
    )
    assert said.stdout == "<launch/container.sh><grpo><--workdir></mnt/it's here><--distributed>"


def test_xpk_is_asked_for_nothing_that_the_check_refuses(fake, tmp_path):
    done, calls, _ = fake("xpk.sh", "up", *XPK_RUN, "--mount", "/data", "--", *TRAIN, CHECK_CODE="2")
    assert done.returncode == 2 and "the check refuses" in done.stderr and calls == []
    assert "check --topology v5e:4x8:2 --mount /data -- grpo" in (tmp_path / "fake" / "checked").read_text()


def test_keys_reach_an_xpk_run_by_a_secret_object(fake):
    done, calls, applied = fake("xpk.sh", "up", *XPK_RUN, "--secret", "keys", "--", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert "<--dry-run><--output-manifest-file>" in calls[0]
    patch = json.loads(next(call for call in calls if "--patch" in call).split("--patch ")[1].split(" --output")[0])
    assert patch[0]["value"] == [{"secretRef": {"name": "keys"}}] and patch[0]["path"].endswith("/containers/0/envFrom")
    assert applied == [{"kind": "JobSet"}]


@pytest.mark.parametrize(
    ("arguments", "message", "environment"),
    [
        (XPK_RUN[2:], "--cluster is missing", {}),
        ([*XPK_RUN, "--topology", "v5e:3x3", "--", *TRAIN], "slices of v5e are 2x2", {}),
        ([*XPK_RUN], "no training command", {}),
        ([*XPK_RUN, "--", *TRAIN], "and quota for v5e:4x8:2 in z", {"XPK_FAILS": "1"}),
    ],
)
def test_xpk_s_and_a_user_s_mistakes_say_what_to_do(fake, arguments, message, environment):
    done, _, _ = fake("xpk.sh", "up", *arguments, **environment)
    assert done.returncode == 2 and message in done.stderr
