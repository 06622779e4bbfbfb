"""Checks of what the settings expect from this machine: environment variables and installed packages."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from mmsearch_jax.core.settings import NotInstalled, VariableNotSet


def check_variable(variable: str, path: str) -> None:
    """Raises a `VariableNotSet` if an environment variable is named but not set.

    Args:
      variable: its name; "" names none.
      path: the setting that names it.
    """
    if variable and not os.environ.get(variable):
        raise VariableNotSet(path, variable)


def check_packages(packages: Sequence[str], extra: str, path: str, value: str) -> None:
    """Raises a `NotInstalled` if a package that a setting needs is not installed.

    Args:
      packages: top-level modules.
      extra: the extra of mmsearch-jax that installs them.
      path, value: the setting that needs them, and its value.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise NotInstalled(
            path, f"is '{value}', which needs {' and '.join(missing)}: pip install 'mmsearch-jax[{extra}]'"
        )
