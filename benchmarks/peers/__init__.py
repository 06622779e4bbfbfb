"""What a user would pick instead, each in an environment of its own: `environment("tunix")` makes it."""

import subprocess
import sys
import venv
from pathlib import Path

_HERE = Path(__file__).parent


def environment(name: str, folder: Path = Path("runs/peers")) -> Path:
    """The interpreter of a peer's environment, made from `benchmarks/peers/<name>.txt` on first use.

    Raises:
      CalledProcessError: a package cannot be installed.
    """
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
