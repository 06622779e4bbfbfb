"""Files that come with the package: `configs/` and `assets/`.

A wheel carries both inside `mmsearch_jax`; a clone, also one that is installed with `--editable`, keeps both at its top.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
REPOSITORY: Path | None = None if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""The top of the clone that this code runs from; None where the package was installed from a wheel."""


def bundled(name: str) -> Path:
    """The path of a bundled file or folder, for instance "configs/tiny_sft.py" or "assets/tiny-base"; it may be missing."""
    return (REPOSITORY or _PACKAGE) / name
