"""The peers that a user would choose instead, each in its own environment: `environment("tunix")` makes it.

`MMSEARCH_PEER_TRANSFORMERS=PYTHON` (or another peer's name) takes an interpreter that has the packages instead.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from safetensors import numpy as safetensors

from mmsearch_jax.models import hf
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

_HERE = Path(__file__).parent


def environment(name: str, folder: Path = Path("runs/peers")) -> Path:
    """The interpreter of a peer's environment, made from `benchmarks/peers/<name>.txt` on first use.

    Raises:
      CalledProcessError: a package cannot be installed.
    """
    if given := os.environ.get(f"MMSEARCH_PEER_{name.upper()}"):
        return Path(given)
    requirements = _HERE / f"{name}.txt"
    home = folder / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp = home / "bin" / "python", home / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != requirements.read_text():
        print(f"installing {requirements.name} into {home}", flush=True)
        venv.create(home, clear=True, with_pip=True)
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            str(requirements),
        ]
        subprocess.run(install, check=True)
        stamp.write_text(requirements.read_text())
    return python.absolute()


def run_peer(name: str, script: str, work: Path) -> dict[str, Any]:
    """What `benchmarks/peers/<script>` prints as its last line, JSON, when it has done `work` in the peer's environment."""
    command = [str(environment(name)), str(_HERE / script), str(work)]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    if ran.returncode:
        sys.exit(f"{name} failed: {ran.stderr[-2000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


class Peer:
    """A peer's script and its work. Each call of `seconds` runs it anew, in a process of its own.

    Attributes:
      found: what the last run printed.
    """

    def __init__(self, name: str, script: str, work: Path, *, at_once: bool = False):
        """`at_once`: the first run is now, for what must be over before JAX takes a GPU."""
        self._command = (name, script, work)
        self._waiting = at_once
        self.found: dict[str, Any] = run_peer(*self._command) if at_once else {}

    def seconds(self) -> dict[str, list[float]]:
        """Of each repeat, by kind ("" where there is one)."""
        if not self._waiting:
            self.found = run_peer(*self._command)
        self._waiting = False
        times = self.found["seconds"]
        return times if isinstance(times, dict) else {"": times}


def save_text_alone(model: Qwen2_5_VL, folder: Path) -> None:
    """The language model's weights under the names of a Qwen2.5, for peers that know text only."""
    hf.save_pretrained(model, folder)
    file, part = folder / "model.safetensors", "model.language_model."
    tensors = safetensors.load_file(file)
    text = {"model." + name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
    safetensors.save_file(text, file)
