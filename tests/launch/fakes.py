"""Runs a launch script with stand-ins for the programs that it calls."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.launch import stand_in_check

LAUNCH = Path(__file__).parents[2] / "launch"


def runner(tmp_path: Path, programs: Mapping[str, str]) -> tuple[Callable[..., subprocess.CompletedProcess[str]], Path]:
    """A function that runs a script of `launch`, and the folder $FAKE in which the stand-ins read and leave files.

    Args:
      programs: text of each stand-in by the name of the program that it replaces.
    """
    bin_folder, state = tmp_path / "bin", tmp_path / "fake"
    bin_folder.mkdir()
    state.mkdir()
    for name, text in programs.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)

    def run(script, *arguments, files=(), **environment):
        for name, text in dict(files).items():
            (state / name).write_text(text)
        return subprocess.run(
            ["bash", str(LAUNCH / script), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=LAUNCH.parent,
            env={
                **os.environ,
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "FAKE": str(state),
                "PYTHON": str(stand_in_check.write(bin_folder)),
                **environment,
            },
        )

    return run, state


def calls(state: Path) -> list[str]:
    """What the stand-ins were called with, a line each."""
    file = state / "calls"
    return file.read_text().splitlines() if file.exists() else []
