"""Sentences about invented things, in the style of captions and encyclopedias; they surround the facts in a corpus.

Real captions repeat a name, shorten it or spell it differently, and are cut at a length limit. A policy that was
trained only on clean lines makes mistakes on such text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np

from mmsearch_jax.miniworld import names


def about(rng: np.random.Generator, name: str) -> str:
    """One to three sentences about a thing; most contain its name or a word of it, at least once."""
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    return " ".join(_FORMS[int(rng.integers(len(_FORMS)))](rng, name) for _ in range(count))


def history(rng: np.random.Generator, name: str) -> str:
    """A sentence on a past event of the named thing."""
    return f"In {rng.integers(1400, 2000)} {name} began the {names.phrase(rng)}."


def plain(rng: np.random.Generator) -> str:
    """The start of a sentence, without a name."""
    return f"{names.phrase(rng)} of the {names.phrase(rng)}".capitalize()


def _part(rng: np.random.Generator, name: str) -> str:
    words = [word for word in name.replace("-", " ").split() if word[0].isupper()] or [name]
    return words[int(rng.integers(len(words)))]


def _spelled_otherwise(name: str) -> str:
    bare = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    if bare != name:
        return bare
    return name.replace("-", " ") if "-" in name else name.replace(" ", "-", 1)


_FORMS: tuple[Callable[[np.random.Generator, str], str], ...] = (
    lambda r, n: f"The {n} is a {names.phrase(r)} in {names.proper_name(r)}, built by the {names.phrase(r)}.",
    lambda r, n: f"{n} was begun in {r.integers(400, 2000)} as the {names.phrase(r)} of {names.proper_name(r)}.",
    lambda r, n: f"{_part(r, n)} is known for its {names.phrase(r)}.",
    lambda r, n: f"This {names.phrase(r)} stands near {names.proper_name(r)} and its {names.phrase(r)}.",
    lambda r, n: f"The {n} at {names.proper_name(r)} is the oldest {names.phrase(r)} of the {names.phrase(r)}.",
    lambda r, n: f"{n} is a {n} of the {names.phrase(r)} in the {_part(r, n)} {names.phrase(r)}.",
    lambda r, n: f"{_spelled_otherwise(n)} is a {names.phrase(r)} near {names.proper_name(r)}.",
    lambda r, n: f"The {n} (also {_spelled_otherwise(n)}, or {names.proper_name(r)}) is a {names.phrase(r)}.",
    lambda r, n: f"{names.proper_name(r)}, known as the {n}, is one of the {names.phrase(r)}.",
    lambda r, n: f"At {names.proper_name(r)} the {_part(r, n)} of {_part(r, n)} was a {names.phrase(r)}.",
    lambda r, n: f"With {names.number(r, 1, 4)} visitors, {n} and {names.proper_name(r)} are the {names.phrase(r)}.",
    lambda r, n: plain(r) + f" in {names.proper_name(r)}.",
)
