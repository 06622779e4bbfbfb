"""Files of the package: `configs/` and `assets/`.

A wheel contains both inside `mmsearch_jax`; a clone (also if installed with `--editable`) has both at its top level.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
REPOSITORY: Path | None = None if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""The root of the clone that this code runs from; None if the package was installed from a wheel."""


def bundled(name: str) -> Path:
    """The path of a bundled file or folder, such as "configs/tiny_sft.py" or "assets/tiny-base"; it may be missing."""
    return (REPOSITORY or _PACKAGE) / name
