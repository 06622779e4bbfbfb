"""Finds evaluation questions and images in a training set: what is trained on must not be tested.

Images: dHash, the signs of horizontal differences of a 9 x 8 grey thumbnail, as 64 bits; two images are near-duplicates where
few bits differ, so resizing and compression hide none. Crops and mirror images are not found. Questions: alike by the Jaccard
index of their words.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from mmsearch_jax.core.errors import ImageError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.images.processing import load_image

_WIDTH, _HEIGHT = 9, 8
# Chinese and Japanese are written without spaces: each character is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training row and an evaluation row with near-duplicate images, or with like questions where neither has an image.

    Attributes:
      image_distance: bits of the images' hashes that differ; None where there is no image.
      question_similarity: Jaccard index of the questions' words, in [0, 1].
      same_question: whether that is enough for one and the same question.
    """

    train_id: str
    eval_id: str
    image_distance: int | None
    question_similarity: float
    same_question: bool


@dataclasses.dataclass
class Report:
    """All pairs, how many rows were looked at, and how many images could not be read."""

    pairs: list[Overlap]
    train_rows: int = 0
    eval_rows: int = 0
    unreadable: int = 0


def image_hash(image: Image.Image) -> int:
    """The dHash of an image: 64 bits."""
    grey = np.asarray(image.convert("L").resize((_WIDTH, _HEIGHT), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


def words(question: str) -> frozenset[str]:
    """The words of a question without case, diacritics and punctuation."""
    text = "".join(c for c in unicodedata.normalize("NFKD", question).casefold() if not unicodedata.combining(c))
    return frozenset(_WORD.findall(text))


def similarity(left: frozenset[str], right: frozenset[str]) -> float:
    """The Jaccard index: 1 for equal sets, 0 for sets without a common word."""
    return len(left & right) / max(1, len(left | right))


def find_overlap(
    train: Iterable[Row], evaluation: Iterable[Row], max_distance: int = 4, min_similarity: float = 0.8
) -> Report:
    """Compares every training row with every evaluation row.

    A like question about another image is no overlap ("Where is this?").

    Args:
      train: read once, row by row; of `evaluation`, hashes and words are held in memory.
      max_distance: of hashes, in bits.
      min_similarity: of questions, in (0, 1].
    """
    report, known = Report([]), _Evaluation()
    for row in evaluation:
        report.eval_rows += 1
        known.add(row, list(_hashes(row, report)))
    known_hashes = np.array(known.hashes, np.uint64)
    for row in train:
        report.train_rows += 1
        asked, nearest = words(row.question), dict[int, int]()
        for code in _hashes(row, report):
            distances = np.bitwise_count(known_hashes ^ np.uint64(code))
            for place in np.flatnonzero(distances <= max_distance):
                number, distance = known.owners[place], int(distances[place])
                nearest[number] = min(distance, nearest.get(number, distance))
        pairs: dict[int, int | None] = {**nearest}
        if not row.images:
            pairs.update(dict.fromkeys(known.asked_alike(asked, min_similarity)))
        for number, distance in sorted(pairs.items()):
            alike = similarity(asked, known.words[number])
            report.pairs.append(Overlap(row.id, known.ids[number], distance, alike, alike >= min_similarity))
    return report


class _Evaluation:
    """Evaluation rows as far as they are compared: `hashes` and their rows' numbers (`owners`), ids and words by number."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.words: list[frozenset[str]] = []
        self.hashes: list[int] = []
        self.owners: list[int] = []
        self._by_word: dict[str, list[int]] = collections.defaultdict(list)

    def add(self, row: Row, hashes: list[int]) -> None:
        number = len(self.ids)
        self.ids.append(row.id)
        self.words.append(words(row.question))
        self.hashes += hashes
        self.owners += [number] * len(hashes)
        if not row.images:
            for word in self.words[-1]:
                self._by_word[word].append(number)

    def asked_alike(self, asked: frozenset[str], min_similarity: float) -> list[int]:
        """Rows without an image whose question is alike."""
        sharing = {number for word in asked for number in self._by_word.get(word, ())}
        return [number for number in sharing if similarity(asked, self.words[number]) >= min_similarity]


def _hashes(row: Row, report: Report) -> Iterator[int]:
    for image in row.images:
        try:
            yield image_hash(load_image(image))
        except ImageError:
            report.unreadable += 1
