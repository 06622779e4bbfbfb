"""Metrics of word overlap: MMSearch's F1 and Dyn-VQA's F1-Recall.

Sources: F1 as in SQuAD (Rajpurkar et al., 2016) and HotpotQA, which MMSearch (arXiv 2409.12959) uses for its end-to-end
answers; F1-Recall as in the evaluation of Dyn-VQA (github.com/Alibaba-NLP/OmniSearch, evaluate.py).
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

from mmsearch_jax.evaluation.metrics import infoseek, vqa

_ONE_WORD_ANSWERS = ("yes", "no", "noanswer")
# Splits short answers as NLTK's word tokenizer does, except that contractions stay whole.
_ENGLISH_WORD = re.compile(r"\d[\d,.:/-]*\d|[^\W_]+(?:['’.-][^\W_]+)*|[^\w\s]|_")
_ENGLISH_MARKS = frozenset(",.?!:;'\"")
_CHINESE = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")
_CHINESE_MARKS = frozenset("，、。 ,.《》")


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of words.

    >>> f1("the tower of Pisa", "Leaning Tower of Pisa")
    0.8571428571428571
    """
    spoken, wanted = infoseek.normalise(answer), infoseek.normalise(gold)
    if spoken != wanted and (spoken in _ONE_WORD_ANSWERS or wanted in _ONE_WORD_ANSWERS):
        return 0.0
    common = _common(spoken.split(), wanted.split())
    if not common:
        return 0.0
    precision, recall = common / len(spoken.split()), common / len(wanted.split())
    return 2 * precision * recall / (precision + recall)


def best_f1(answer: str, golds: Sequence[str]) -> float:
    """The largest F1 over the accepted answers."""
    return max(f1(answer, gold) for gold in golds)


def f1_recall(answer: str, golds: Sequence[str], language: str) -> float:
    """Share of a gold answer's words that the answer contains; the maximum over the gold answers.

    Args:
      language: "en" or "zh". The source splits Chinese into words with a dictionary (jieba). Here each character is a
        word, so that the scores of partly right answers may differ. The source also keeps the case of Chinese gold
        answers.
    """
    words = chinese_words if language == "zh" else english_words
    spoken = words(vqa.normalise(answer))
    if not spoken:
        return 0.0
    shares = []
    for gold in golds:
        wanted = words(gold)
        shares.append(_common(spoken, wanted) / len(wanted) if wanted else 0.0)
    return max(shares)


def english_words(text: str) -> list[str]:
    """Words and numbers in lower case, without punctuation."""
    return [word for word in _ENGLISH_WORD.findall(text.lower()) if word not in _ENGLISH_MARKS]


def chinese_words(text: str) -> list[str]:
    """Chinese characters one by one, words of other scripts whole and in lower case, without punctuation."""
    return [word for word in _CHINESE.findall(text.lower()) if word not in _CHINESE_MARKS]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    return (collections.Counter(first) & collections.Counter(second)).total()
