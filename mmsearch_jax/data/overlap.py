"""Finds evaluation questions and images in a training set, since training data must not be tested on.

Images are compared by dHash: the signs of horizontal differences in a 9 x 8 grey thumbnail, as 64 bits. Two images are
near-duplicates if few bits differ, so resized and recompressed copies are found, but not crops and mirror images. Questions
are compared by the Jaccard index of their words.
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
# Chinese and Japanese do not use spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training row and an evaluation row with near-duplicate images, or with similar questions if neither has an image.

    Attributes:
      image_distance: number of bits in which the images' hashes differ; None if there is no image.
      question_similarity: Jaccard index of the questions' words, in [0, 1].
      same_question: whether the similarity is high enough for the same question.
    """

    train_id: str
    eval_id: str
    image_distance: int | None
    question_similarity: float
    same_question: bool


@dataclasses.dataclass
class Report:
    """All pairs, the numbers of rows compared, and the number of unreadable images."""

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

    Similar questions about different images are no overlap ("Where is this?").

    Args:
      train: read once, row by row; hashes and words of `evaluation` are held in memory.
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
    """Evaluation rows in the form for comparison: `hashes` with their rows' numbers (`owners`), ids and words by number."""

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
        """Rows without an image whose question is similar."""
        sharing = {number for word in asked for number in self._by_word.get(word, ())}
        return [number for number in sharing if similarity(asked, self.words[number]) >= min_similarity]


def _hashes(row: Row, report: Report) -> Iterator[int]:
    for image in row.images:
        try:
            yield image_hash(load_image(image))
        except ImageError:
            report.unreadable += 1
