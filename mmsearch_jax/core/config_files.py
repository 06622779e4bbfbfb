"""Config files and their overrides: `configs/x.py` with `get_config()`, and `--config.a.b=value` from the command line.

`configs/x.py:ARGUMENT` calls `get_config(ARGUMENT)`: the configs of published models take a topology ("v5p:2x2x4") there.

A config is locked: a key that it does not have is an error that names the nearest one.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from mmsearch_jax.core.errors import ConfigError

PREFIX = "--config."


def load_config(
    path: str | Path, overrides: Sequence[str] = (), default_argument: str = ""
) -> ml_collections.ConfigDict:
    """Runs a config file's `get_config()` and applies overrides.

    Args:
      path: of the file; the text after ".py:" is its argument.
      default_argument: given to a `get_config` that takes one, where the path has none.
      overrides: "--config.a.b=value" each; the value is read as a Python literal of the old value's kind.

    Raises:
      ConfigError: no such file, no `get_config`, an argument that it does not take, an unknown key, or a value of another kind.
    """
    file, extension, argument = str(path).partition(".py:")
    path = Path(file + ".py" if extension else file)
    if not path.is_file():
        raise ConfigError(f"no config file at {path}: the bundled ones are in configs/")
    config = _run(path, argument, default_argument)
    set_overrides(config, overrides)
    return config.lock()


def set_overrides(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> None:
    """Sets values from the command line, "--config.a.b=value" each.

    Raises:
      ConfigError: not of that form, an unknown key, or a value of another kind.
    """
    for override in overrides:
        key, equals, text = override.removeprefix(PREFIX).partition("=")
        if not override.startswith(PREFIX) or not equals:
            raise ConfigError(f"cannot read '{override}': write --config.KEY=VALUE")
        set_key(config, key, text)


def set_key(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets the dotted `key` from text.

    Raises:
      ConfigError: unknown key (the nearest is named), or a value of another kind.
    """
    *parents, last = key.split(".")
    section: Any = config
    path = [*parents, last]
    for depth, name in enumerate(path):
        if not isinstance(section, ml_collections.ConfigDict) or name not in section:
            raise ConfigError(_unknown(config, key, ".".join(path[: depth + 1])))
        if depth < len(parents):
            section = section[name]
    inner = section[last]
    if isinstance(inner, ml_collections.ConfigDict):
        raise ConfigError(f"'{key}' is a section: set one of {', '.join(f'{key}.{name}' for name in inner.keys())}")  # noqa: SIM118
    with section.unlocked():
        section[last] = _parse(key, text, inner)


def secret(variable: str, key: str) -> str:
    """The value of the environment variable; "" where none is named.

    Args:
      key: what names it, for the error: "config.tools.token_env", "--token-env".

    Raises:
      ConfigError: it is named, but not set.
    """
    value = os.environ.get(variable, "") if variable else ""
    if variable and not value:
        raise ConfigError(f"{key} names the environment variable {variable}, which is not set")
    return value


def save_config(config: ml_collections.ConfigDict, path: str | Path) -> None:
    """Writes the config as JSON, as it was used."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config.to_dict(), indent=2, sort_keys=True, default=list) + "\n", encoding="utf-8")


def as_arguments(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section's values as keyword arguments; lists become tuples, as frozen dataclasses want them."""
    return {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in section.items()}


def _run(path: Path, argument: str, default_argument: str) -> ml_collections.ConfigDict:
    # Config files may build on one another: `from configs import tiny`.
    root = str(path.resolve().parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(f"mmsearch_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        takes_one = bool(inspect.signature(module.get_config).parameters)
        if argument and not takes_one:
            raise ConfigError(f"its get_config takes no argument, so no '{argument}'")
        argument = argument or (default_argument if takes_one else "")
        config = module.get_config(argument) if argument else module.get_config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # a config file is the user's code and may raise anything
        raise ConfigError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"{path}: get_config() must return an ml_collections.ConfigDict")
    return config


def _unknown(config: ml_collections.ConfigDict, key: str, part: str) -> str:
    known = list(_keys(config))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known[:12])}, ..."
    return f"unknown config key '{part}': {hint}"


def _keys(config: ml_collections.ConfigDict, prefix: str = ""):
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _parse(key: str, text: str, old: Any) -> Any:
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if old is not None and type(value) is not type(old):
        raise ConfigError(f"config key '{key}' takes {_kind(old)}, got '{text}'")
    return value


def _kind(value: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", tuple: "a tuple"}.get(
        type(value), "a value"
    )
