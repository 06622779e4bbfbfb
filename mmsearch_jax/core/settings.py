"""What a setting is: one field of a frozen dataclass, with its type, default, documentation and sound values.

Records of settings derive from `Section` and declare each field with `setting`. A record checks itself when it is made, so
a record that exists is sound. Records nest; the whole tree of one command is a record too. `core.config_files` turns trees
into ml_collections configs and back; this module knows nothing of files or of the command line.

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
    """A setting whose value is not sound.

    Attributes:
      path: dotted path of the setting, from the record that was checked.
      reason: what is wrong and what to do; continues a sentence that begins with the path.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path} {reason}")
        self.path, self.reason = path, reason

    def below(self, section: str) -> SettingError:
        """The same error, seen from the record that holds this one as `section`."""
        return SettingError(f"{section}.{self.path}", self.reason) if section else self


class Bounds(NamedTuple):
    """The sound values of a setting; of a tuple, what holds for each of its items."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """What is wrong with one value, in words; "" if nothing is."""
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
      default: its default; without one, whoever makes the record must give the value. A dict is copied for each record.
      doc: one line of documentation.
      at_least, at_most, above, below: bounds of a number, or of each number in a tuple.
      one_of: the words that are allowed, for a text or for each text in a tuple.
    """
    metadata = {"doc": doc, "bounds": Bounds(at_least, at_most, above, below, tuple(one_of))}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata, kw_only=kw_only)
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


@dataclasses.dataclass(frozen=True)
class Section:
    """Base of all records of settings.

    Raises (when made):
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

        For what depends on the machine and on the user: environment variables, installed packages, values that have no
        default. `print-config` and planning do without.
        """

    def require_ready(self, path: str = "") -> Self:
        """This record, once `check_ready` of it and of all sections in it has passed."""
        try:
            self.check_ready()
        except SettingError as error:
            raise error.below(path) from None
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Section):
                value.require_ready(f"{path}.{field.name}" if path else field.name)
        return self


@functools.cache
def types_of(section: type[Section]) -> dict[str, Any]:
    """The type of each field."""
    return typing.get_type_hints(section)


def doc_of(field: dataclasses.Field[Any]) -> str:
    """The documentation of a field."""
    return field.metadata["doc"]


def section_type(hint: Any) -> type[Section] | None:
    """The record that a field's type names; None for a plain value."""
    return hint if isinstance(hint, type) and issubclass(hint, Section) else None


def mapped_type(hint: Any) -> Any:
    """The type of the values, where a field's type is a mapping by name; else None."""
    return typing.get_args(hint)[1] if typing.get_origin(hint) in (dict, Mapping) or _is_mapping(hint) else None


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def build(section: type[T], values: Mapping[str, Any], path: str = "", base: T | None = None) -> T:
    """A record from nested values; what is not given is as in `base`, or has its default.

    Args:
      path: where the record stands in the whole tree, for errors.

    Raises:
      SettingError: an unknown name (the nearest is named), or a value that is not sound.
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
      SettingError: as `build`.
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
    """The error of a path that the tree does not have; names the nearest that it has."""
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
    hint = (
        f"did you mean '{near[0]}'?"
        if near
        else f"known are {', '.join(list(known)[:12])}{', ...' * (len(known) > 12)}"
    )
    return ConfigError(f"unknown setting '{path}': {hint}")


def plain(value: Any) -> Any:
    """Records as nested dicts, everything else as it is."""
    if isinstance(value, Section):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def leaves(section: Section, path: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any, Any]]:
    """Every plain setting of a tree: dotted path, field, type, value. Mappings of records are walked through, too."""
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
    """The value as its type wants it: lists become tuples, whole numbers become floats where a float is due.

    Raises:
      SettingError: it is of another type.
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
    """The value that a text of the command line means for a setting of this type.

    Raises:
      SettingError: it means none.
    """
    if hint is str:
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = text
    return typed(value, hint, path)


def kind(hint: Any) -> str:
    """A type in words, with the syntax of the command line."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        example = {str: "('a',)", int: "(1, 2)", float: "(0.5, 1.0)"}.get(arguments[0], "(...,)")
        return f"a tuple such as {example}"
    if _is_mapping(hint):
        return "a mapping such as {'a': ('b',)}"
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
