"""Settings: fields of frozen dataclasses, with type, default, documentation and valid values.

Records of settings derive from `Section` and declare each field with `setting`. A record validates itself when it is created,
so every existing record is valid. Records nest; the whole tree of one command is a record too. `core.config_files` converts
trees to ml_collections configs and back; this module does not depend on files or the command line.

Example:

    @dataclasses.dataclass(frozen=True)
    class LoRAConfig(Section):
        rank: int = setting(8, "rank of the update; 0 trains all parameters", at_least=0)
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeVar, cast

from mmsearch_jax.core.errors import ConfigError

T = TypeVar("T", bound="Section")


class SettingError(ConfigError):
    """A setting with an invalid value.

    Attributes:
      path: dotted path of the setting, from the record that was checked.
      reason: what is wrong and what to do; continues a sentence that begins with the path.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path} {reason}")
        self.path, self.reason = path, reason

    def below(self, section: str) -> Self:
        """This error, with its path below `section` from now on: the name of this record in the enclosing one."""
        if section:
            self.path = f"{section}.{self.path}"
            self.args = (f"{self.path} {self.reason}",)
        return self


class MissingFile(SettingError):
    """A setting that names a file or folder which does not exist here.

    Attributes:
      file: its path.
    """

    def __init__(self, path: str, reason: str, file: str):
        super().__init__(path, reason)
        self.file = file


class VariableNotSet(SettingError):
    """A setting that names an environment variable which is not set here.

    Attributes:
      variable: its name.
    """

    def __init__(self, path: str, variable: str):
        super().__init__(path, f"names the environment variable {variable}, which is not set: export it")
        self.variable = variable


class NotInstalled(SettingError):
    """A setting that needs a package which is not installed here."""


class Bounds(NamedTuple):
    """The valid values of a setting; for a tuple, of each item."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """The problem with one value, in words; "" if there is none."""
        if self.one_of and value not in self.one_of:
            near = difflib.get_close_matches(str(value), self.one_of, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            return f"{hint}use {_listed(self.one_of)}"
        if not isinstance(value, int | float) or isinstance(value, bool):
            return ""
        if self.at_least is not None and not value >= self.at_least:
            return f"must be at least {self.at_least:g}"
        if self.above is not None and not value > self.above:
            return f"must be above {self.above:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"must be at most {self.at_most:g}"
        if self.below is not None and not value < self.below:
            return f"must be below {self.below:g}"
        return ""


def setting(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    one_of: Sequence[str] = (),
    kw_only: bool = False,
) -> Any:
    """A field of a `Section`.

    Args:
      default: default value; without one, the record's creator must give the value. A dict is copied for each record.
      doc: one line of documentation.
      at_least, at_most, above, below: bounds of a number, or of each number in a tuple.
      one_of: allowed words of a text, or of each text in a tuple.
    """
    metadata = {"doc": doc, "bounds": Bounds(at_least, at_most, above, below, tuple(one_of))}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata, kw_only=kw_only)
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


@dataclasses.dataclass(frozen=True)
class Section:
    """Base of all records of settings.

    Raises (when it is created):
      SettingError: a value of another type, a value outside its bounds, or values that contradict one another.
    """

    def __post_init__(self) -> None:
        hints = types_of(type(self))
        for field in dataclasses.fields(self):
            value = typed(getattr(self, field.name), hints[field.name], field.name)
            object.__setattr__(self, field.name, value)
            _check_bounds(value, field)
        self.check()

    def check(self) -> None:
        """Raises a `SettingError` if fields contradict one another. Records override it."""

    def check_ready(self) -> None:
        """Raises a `SettingError` if a run with these values could not start here. Records override it.

        It covers what depends on the machine and the user: environment variables, installed packages, values without a default.
        `print-config` and planning do not call it.
        """

    def require_ready(self, path: str = "") -> Self:
        """Returns this record after `check_ready` of it and of all sections in it has passed."""
        if found := self.not_ready(path):
            raise found[0]
        return self

    def not_ready(self, path: str = "") -> list[SettingError]:
        """Why a run with these values could not start here: one error for this record and for each section in it.

        Args:
          path: path of this record in the whole tree.
        """
        found = []
        try:
            self.check_ready()
        except SettingError as error:
            found.append(error.below(path))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Section):
                found += value.not_ready(f"{path}.{field.name}" if path else field.name)
        return found


@functools.cache
def types_of(section: type[Section]) -> dict[str, Any]:
    """The type of each field."""
    return typing.get_type_hints(section)


def doc_of(field: dataclasses.Field[Any]) -> str:
    """The documentation of a field."""
    return field.metadata["doc"]


def section_type(hint: Any) -> type[Section] | None:
    """The record type of a field; None for a plain value."""
    return hint if isinstance(hint, type) and issubclass(hint, Section) else None


def mapped_type(hint: Any) -> Any:
    """The type of the values if a field is a mapping by name; else None."""
    return typing.get_args(hint)[1] if typing.get_origin(hint) in (dict, Mapping) or _is_mapping(hint) else None


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def build(section: type[T], values: Mapping[str, Any], path: str = "", base: T | None = None) -> T:
    """A record from nested values; missing values are taken from `base`, or have their defaults.

    Args:
      path: path of the record in the whole tree, for errors.

    Raises:
      SettingError: an unknown name (the nearest is named), or an invalid value.
    """
    hints, fields = types_of(section), {field.name: field for field in dataclasses.fields(section)}
    made = {} if base is None else {name: getattr(base, name) for name in fields}
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if name not in fields:
            raise unknown(here, [f"{path}.{known}" if path else known for known in fields])
        inner, of_mapping = section_type(hints[name]), section_type(mapped_type(hints[name]))
        if (inner or of_mapping) and not isinstance(value, Mapping):
            raise SettingError(here, f"is a section, got {value!r}")
        if inner is not None:
            default = made.get(name, fields[name].default)
            made[name] = build(inner, value, here, default if isinstance(default, Section) else None)
        elif of_mapping is not None:
            made[name] = {key: build(of_mapping, item, f"{here}.{key}") for key, item in value.items()}
        else:
            made[name] = value
    for name, field in fields.items():
        if name not in made and field.default is field.default_factory is dataclasses.MISSING:
            raise SettingError(f"{path}.{name}" if path else name, "has no value and no default: set it")
    try:
        return section(**made)
    except SettingError as error:
        raise error.below(path) from None


def replaced(section: T, values: Mapping[str, Any]) -> T:
    """A copy of a tree with the values of some dotted paths changed.

    Raises:
      SettingError: see `build`.
    """
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return build(type(section), nested, base=section)


def unknown(path: str, known: Sequence[str]) -> ConfigError:
    """The error for a path that is not in the tree; names the nearest existing one."""
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
    hint = (
        f"did you mean '{near[0]}'?"
        if near
        else f"known are {', '.join(list(known)[:12])}{', ...' * (len(known) > 12)}"
    )
    return ConfigError(f"unknown setting '{path}': {hint}")


def plain(value: Any) -> Any:
    """Records as nested dicts; other values unchanged."""
    if isinstance(value, Section):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def leaves(section: Section, path: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any, Any]]:
    """Every plain setting of a tree: dotted path, field, type, value. Mappings of records are included."""
    hints = types_of(type(section))
    for field in dataclasses.fields(section):
        here, value = f"{path}.{field.name}" if path else field.name, getattr(section, field.name)
        if isinstance(value, Section):
            yield from leaves(value, here)
        elif section_type(mapped_type(hints[field.name])) is not None:
            for key, item in value.items():
                yield from leaves(item, f"{here}.{key}")
        else:
            yield here, field, hints[field.name], value


def typed(value: Any, hint: Any, path: str) -> Any:
    """The value converted to its type: lists become tuples, and whole numbers become floats if the type is float.

    Raises:
      SettingError: the value has another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return typed(value, next(each for each in arguments if each is not type(None)), path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong_type(value, hint, path)
        items = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(value):
            raise SettingError(path, f"takes {len(items)} values, got {len(value)}: {value!r}")
        try:
            return tuple(typed(item, each, path) for item, each in zip(value, items, strict=True))
        except SettingError:
            raise _wrong_type(value, hint, path) from None
    if _is_mapping(hint):
        if not isinstance(value, Mapping):
            raise _wrong_type(value, hint, path)
        return {str(key): typed(item, arguments[1], f"{path}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value):
        return float(value)
    if hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if hint not in (int, float) and isinstance(value, hint):
        return value
    raise _wrong_type(value, hint, path)


def read(text: str, hint: Any, path: str) -> Any:
    """Parses a text of the command line as a value of this type.

    Raises:
      SettingError: it is not such a value.
    """
    if hint is str:
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        # A tuple of texts may be written as words: a.array_record,b.array_record
        words = (
            typing.get_origin(hint) is tuple
            and typing.get_args(hint) == (str, Ellipsis)
            and not text.startswith(("(", "[", "{"))
        )
        value = tuple(word.strip() for word in text.split(",") if word.strip()) if words else text
    return typed(value, hint, path)


def kind(hint: Any) -> str:
    """A type in words, with the syntax of the command line."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        example = {str: "('a',), or words such as a,b", int: "(1, 2)", float: "(0.5, 1.0)"}.get(arguments[0], "(...,)")
        return f"a tuple such as {example}"
    if _is_mapping(hint):
        return "a mapping such as {'a': 'b'}"
    if origin in (typing.Union, types.UnionType):
        return kind(next(each for each in arguments if each is not type(None)))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(
        cast(Any, hint), "a section"
    )


def _wrong_type(value: Any, hint: Any, path: str) -> SettingError:
    return SettingError(path, f"takes {kind(hint)}, got {value!r}")


def _check_bounds(value: Any, field: dataclasses.Field[Any]) -> None:
    bounds: Bounds | None = field.metadata.get("bounds")
    if bounds is None:
        return
    for item in value if isinstance(value, tuple) else (value,):
        if problem := bounds.problem(item):
            shown = f"has {item!r}" if isinstance(value, tuple) else f"is {item!r}"
            raise SettingError(field.name, f"{shown}: {problem}")


def _listed(words: Sequence[str]) -> str:
    words = [word or "''" for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
