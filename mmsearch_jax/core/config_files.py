"""Config files and the command line: converts `configs/x.py` and `--config.a.b=value` to a checked tree of settings.

A config file has a `get_config()` that returns an ml_collections config, built from a tree of settings with `as_config`.
`configs/x.py:ARGUMENT` calls `get_config(ARGUMENT)`: the configs of published models take a topology ("v5p:2x2x4").
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import ml_collections

from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.settings import (
    Section,
    SettingError,
    build,
    doc_of,
    leaves,
    mapped_type,
    plain,
    read,
    section_type,
    types_of,
    unknown,
)

T = TypeVar("T", bound=Section)
PREFIX = "--config."
DEFAULT, FILE, COMMAND_LINE = "default", "file", "command line"


class Loaded(NamedTuple, Generic[T]):
    """A checked tree, and the source of each setting that does not have its default value."""

    settings: T
    sources: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """The tree as text: each setting with its value, its source and its documentation."""
        for path, field, _, value in leaves(self.settings):
            yield f"{path} = {value!r}  [{self.sources.get(path, DEFAULT)}]"
            yield from textwrap.wrap(doc_of(field), 76, initial_indent="    ", subsequent_indent="    ")


def load(
    tree: type[T], path: str | Path | None, overrides: Sequence[str] = (), default_argument: str = ""
) -> Loaded[T]:
    """The settings of a command, checked as a whole.

    Args:
      tree: the command's tree.
      path: a config file; the text after ".py:" is its argument. None takes the defaults.
      overrides: strings "--config.a.b=value"; the value is parsed according to the setting's type.
      default_argument: passed to a `get_config` that takes an argument, if the path has none.

    Raises:
      ConfigError: no such file, no `get_config`, an argument that it does not accept, or an override that cannot be read.
      SettingError: an unknown setting (the nearest is named), or an invalid value.
    """
    values = plain(tree()) if path is None else run_config_file(path, default_argument).to_dict()
    return resolve(tree, values, overrides)


def resolve(tree: type[T], values: dict[str, Any], overrides: Sequence[str] = ()) -> Loaded[T]:
    """Like `load`, from the nested values of a config (which are modified)."""
    given = {}
    for override in overrides:
        key, equals, text = override.removeprefix(PREFIX).partition("=")
        if not override.startswith(PREFIX) or not equals:
            raise ConfigError(f"cannot read '{override}': write --config.KEY=VALUE")
        set_value(tree, values, key, text)
        given[key] = COMMAND_LINE
    _require_own(tree, values)
    settings = build(tree, values)
    defaults = {path: value for path, _, _, value in leaves(tree())}
    changed = {path: FILE for path, _, _, value in leaves(settings) if path not in defaults or defaults[path] != value}
    return Loaded(settings, {**changed, **given})


def _require_own(tree: type[Section], values: Mapping[str, Any]) -> None:
    """Checks that a config is of the tree's command, whose sections it names."""
    foreign = [name for name in values if name not in types_of(tree)]
    if foreign and not difflib.get_close_matches(foreign[0], types_of(tree), n=1, cutoff=0.4):
        raise ConfigError(
            f"the config sets '{foreign[0]}', which this command does not have: it is another command's, which its first lines "
            "name; give one of this command"
        )


def set_value(tree: type[Section], values: dict[str, Any], key: str, text: str) -> None:
    """Sets the dotted `key` of nested values from text.

    Raises:
      SettingError: an unknown key (the nearest is named), a section, or a value of another type.
    """
    *parents, last = key.split(".")
    hint: Any = tree
    whole = values
    for depth, name in enumerate((*parents, last)):
        inside = section_type(hint)
        if inside is not None and name in types_of(inside):
            hint = types_of(inside)[name]
        elif (
            inside is None
            and mapped_type(hint) is not None
            and (section_type(mapped_type(hint)) is None or name in values)
        ):
            hint = mapped_type(hint)
        else:
            raise unknown(key, [path for path, *_ in leaves(build(tree, whole))])
        if depth < len(parents):
            values = values.setdefault(name, {})
    if section_type(hint) is not None:
        raise SettingError(
            f"'{key}'", f"is a section: set one of {', '.join(f'{key}.{name}' for name in types_of(hint))}"
        )
    values[last] = read(text, hint, key)


def as_config(settings: Section) -> ml_collections.ConfigDict:
    """The tree as an ml_collections config that config files can modify."""
    return ml_collections.ConfigDict(plain(settings))


def save(settings: Section, path: str | Path) -> None:
    """Writes the tree as JSON, with all values."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(settings), indent=2, sort_keys=True, default=list) + "\n", encoding="utf-8")


def secret(variable: str, key: str) -> str:
    """The value of an environment variable; "" if none is named.

    Args:
      key: the setting or option that names the variable, for the error.

    Raises:
      ConfigError: the variable is not set.
    """
    value = os.environ.get(variable, "") if variable else ""
    if variable and not value:
        raise ConfigError(f"{key} names the environment variable {variable}, which is not set: export it")
    return value


def _bundled_configs() -> str:
    configs = bundled("configs")
    return ", ".join(f"configs/{path.relative_to(configs).as_posix()}" for path in sorted(configs.rglob("*.py")))


def run_config_file(path: str | Path, default_argument: str = "") -> ml_collections.ConfigDict:
    """The result of a config file's `get_config()`.

    Raises:
      ConfigError: see `load`.
    """
    file, extension, argument = str(path).partition(".py:")
    path = Path(file + ".py" if extension else file)
    if not path.is_file() and path.parts[:1] == ("configs",):
        path = bundled(str(path))
    if not path.is_file():
        raise ConfigError(f"no config file at {file}{extension[:3]}: the bundled ones are {_bundled_configs()}")
    if path.suffix != ".py":
        raise ConfigError(
            f"{path} is no config file: give a Python file with get_config(), such as configs/quickstart.py"
        )
    spec = importlib.util.spec_from_file_location(f"mmsearch_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise ConfigError("it has no get_config(), which returns the config: see configs/quickstart.py")
        takes_one = bool(inspect.signature(module.get_config).parameters)
        if argument and not takes_one:
            raise ConfigError(f"its get_config takes no argument, so remove '{argument}'")
        argument = argument or (default_argument if takes_one else "")
        config = module.get_config(argument) if argument else module.get_config()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:  # a config file is the user's code: any exception is theirs to correct
        raise ConfigError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"{path}: get_config() must return an ml_collections.ConfigDict")
    return config
