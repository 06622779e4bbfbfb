"""Every mistake of a command line's settings at once, where `config_files.load` stops at the first."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from mmsearch_jax.core.config_files import resolve
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.settings import Section

T = TypeVar("T", bound=Section)


class Resolved(NamedTuple):
    """The settings without the overrides that are wrong (None if the config itself is wrong), and the mistakes."""

    settings: Any
    problems: list[str]


def resolve_all(tree: type[Section], values: dict[str, Any], overrides: Sequence[str]) -> Resolved:
    """`config_files.resolve`, which leaves out the overrides that it refuses.

    Args:
      values: nested values of a config.
    """
    kept, problems = list(overrides), list[str]()
    while True:
        try:
            return Resolved(resolve(tree, copy.deepcopy(values), kept).settings, problems)
        except ConfigError as error:
            problems.append(str(error))
            without = {each: _message_without(tree, values, kept, each) for each in kept}
            changing = [each for each in kept if without[each] != str(error)]
            if not changing:
                return Resolved(None, problems)
            # One that mends everything goes before one whose absence only brings up another mistake.
            kept.remove(next((each for each in changing if not without[each]), changing[0]))


def _message_without(tree: type[Section], values: dict[str, Any], overrides: list[str], left_out: str) -> str:
    try:
        resolve(tree, copy.deepcopy(values), [each for each in overrides if each != left_out])
    except ConfigError as error:
        return str(error)
    return ""
